//! Tests in processes of their own, beside each other: an emulated card is one per process.

use std::any::type_name;
use std::env;
use std::process::Command;

/// Set in the process of one test.
const APART: &str = "CORELLA_EMULATED_APART";

/// Runs the test whose body this closure is in another process of this program.
pub fn apart<F: FnOnce()>(test: F) {
    if env::var_os(APART).is_some() {
        return test();
    }
    // `emulated::module::test::{{closure}}`
    let path = type_name::<F>();
    let name = path.split_once("::").and_then(|(_, name)| name.strip_suffix("::{{closure}}")).unwrap_or(path);
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", name, "--nocapture"]).env(APART, "1");
    let output = command.output().expect("this program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{name}: {}", output.status);
}
