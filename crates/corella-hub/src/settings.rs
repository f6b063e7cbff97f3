//! Where the hub and the cache are, and who asks: the variables of `huggingface_hub`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::{HubError, Roots};

/// Endpoint, cache and token.
#[derive(Clone)]
pub struct Settings {
    /// Address of the hub, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Folder of the cache (`HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `HF_HOME/hub`, else
    /// `~/.cache/huggingface/hub`).
    pub cache: PathBuf,
    /// Access token (`HF_TOKEN`, else the file `HF_TOKEN_PATH` or `HF_HOME/token`), none with
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    pub token: Option<String>,
    /// The variable or file that the token is from.
    pub token_from: String,
    /// Certificates to trust instead of the built-in ones (the file `SSL_CERT_FILE`, else `REQUESTS_CA_BUNDLE`; none is read where
    /// the cache alone is used).
    pub roots: Option<Roots>,
    /// Use the cache alone (`HF_HUB_OFFLINE`, else `TRANSFORMERS_OFFLINE`).
    pub offline: bool,
    /// Show how far downloads are (not with `HF_HUB_DISABLE_PROGRESS_BARS`).
    pub progress: bool,
    /// Tries of a request that fails for a reason that may pass.
    pub tries: u32,
    /// Wait before the second try; doubles with each, unless the server names a time.
    pub first_wait: Duration,
}

impl Settings {
    /// The settings that the environment describes.
    pub fn from_env() -> Result<Settings, HubError> {
        Settings::from_variables(&|name| std::env::var_os(name).filter(|v| !v.is_empty()))
    }

    /// The same with the variables given by a function, `None` for those that are not set.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings, HubError> {
        let user_home = || variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
        // A `~` that no shell has replaced stands for the same.
        let path = |name: &str| {
            let path = PathBuf::from(variable(name)?);
            let below_home = path.strip_prefix("~").ok().and_then(|rest| Some(user_home()?.join(rest)));
            Some(below_home.unwrap_or(path))
        };
        let text = |name: &str| variable(name).and_then(|v| v.into_string().ok());
        let user_cache =
            || path("XDG_CACHE_HOME").unwrap_or_else(|| user_home().unwrap_or_else(std::env::temp_dir).join(".cache"));
        let home = path("HF_HOME").unwrap_or_else(|| user_cache().join("huggingface"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let truth = |name: &str| text(name).map(|v| matches!(&v.to_ascii_uppercase()[..], "1" | "ON" | "YES" | "TRUE"));
        let implicit = truth("HF_HUB_DISABLE_IMPLICIT_TOKEN") != Some(true);
        let (token, token_from) = match variable("HF_TOKEN") {
            Some(token) => (Some(token.to_string_lossy().into_owned()), "HF_TOKEN".to_owned()),
            None => {
                let bytes = std::fs::read(&token_file).ok();
                (bytes.map(|b| String::from_utf8_lossy(&b).into_owned()), token_file.display().to_string())
            }
        };
        let token = token.filter(|_| implicit).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        // It travels in a header: said here, it is not taken for a failure of the network.
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(HubError::BadToken { from: token_from });
        }
        let offline = truth("HF_HUB_OFFLINE").or_else(|| truth("TRANSFORMERS_OFFLINE")) == Some(true);
        let roots = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].into_iter().find_map(|name| Some((name, path(name)?)));
        let roots = roots.filter(|_| !offline).map(|(name, path)| Roots::read(name, &path)).transpose()?;
        Ok(Settings {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            cache: path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub")),
            token,
            token_from,
            roots,
            offline,
            progress: truth("HF_HUB_DISABLE_PROGRESS_BARS") != Some(true),
            tries: 5,
            first_wait: Duration::from_secs(1),
        })
    }
}

impl std::fmt::Debug for Settings {
    /// Everything but the token itself.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("roots", &self.roots)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use crate::HubError;
    use std::path::Path;

    fn try_with(pairs: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::from_variables(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into()))
    }

    fn with(pairs: &[(&str, &str)]) -> Settings {
        try_with(pairs).expect("settings")
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_named() {
        for token in ["a\nb", "t\u{f6}ken", "a b"] {
            let refused = try_with(&[("HF_TOKEN", token)]).expect_err("no token").to_string();
            assert!(refused.contains("HF_TOKEN") && !refused.contains(token), "{refused}");
            with(&[("HF_TOKEN", token), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        }
        assert_eq!(with(&[("HF_TOKEN", "sesame")]).token_from, "HF_TOKEN");
        let file = with(&[("HF_TOKEN_PATH", "/nowhere/token")]);
        assert_eq!((file.token, &file.token_from[..]), (None, "/nowhere/token"));
    }

    #[test]
    fn certificates_are_read_where_a_variable_names_them() {
        let dir = std::env::temp_dir().join(format!("corella-hub-roots-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("made");
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).expect("written");
            dir.join(name).display().to_string()
        };
        // What is inside is judged when a server shows its own.
        let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let (one, two) = (file("one.pem", pem), file("two.pem", &[pem, pem].concat()));
        let count = |pairs: &[(&str, &str)]| with(pairs).roots.map(|roots| roots.count());
        assert_eq!(count(&[("SSL_CERT_FILE", &two), ("REQUESTS_CA_BUNDLE", &one)]), Some(2));
        assert_eq!((count(&[("REQUESTS_CA_BUNDLE", &one)]), count(&[])), (Some(1), None));
        let empty = file("empty.pem", "no certificate");
        for (name, path) in [("SSL_CERT_FILE", "/nowhere.pem"), ("REQUESTS_CA_BUNDLE", &empty[..])] {
            let refused = try_with(&[(name, path)]).expect_err("no certificates");
            assert!(matches!(refused, HubError::BadRoots { .. }) && refused.hint().is_some());
            assert!(refused.to_string().starts_with(&format!("{name}={path}: ")), "{refused}");
            assert!(with(&[(name, path), ("HF_HUB_OFFLINE", "1")]).roots.is_none(), "nothing is fetched");
        }
        let _ = std::fs::remove_dir_all(dir);
    }

    #[test]
    fn progress_is_shown_unless_told_otherwise() {
        assert!(with(&[]).progress && with(&[("HF_HUB_DISABLE_PROGRESS_BARS", "0")]).progress);
        assert!(!with(&[("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).progress);
    }

    #[test]
    fn the_variables_win_in_the_order_of_huggingface_hub() {
        let plain = with(&[("HOME", "/h")]);
        assert_eq!(plain.cache, Path::new("/h/.cache/huggingface/hub"));
        assert!(plain.endpoint.starts_with("https://") && plain.token.is_none() && !plain.offline);
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(with(&[("HF_HOME", "/a"), ("HOME", "/h")]).cache, Path::new("/a/hub"));
        let all = with(&[
            ("HF_HOME", "/a"),
            ("HF_HUB_CACHE", "/b"),
            ("HF_TOKEN", " sesame\n"),
            ("HF_ENDPOINT", "http://127.0.0.1:1/"),
            ("HF_HUB_OFFLINE", "yes"),
        ]);
        assert_eq!((all.cache.as_path(), all.token.as_deref()), (Path::new("/b"), Some("sesame")));
        assert!(all.offline && all.endpoint == "http://127.0.0.1:1");
        let older = with(&[("HUGGINGFACE_HUB_CACHE", "~/c"), ("HOME", "/h"), ("TRANSFORMERS_OFFLINE", "1")]);
        assert!(older.cache == Path::new("/h/c") && older.offline);
        assert_eq!(with(&[("HF_HOME", "~"), ("HOME", "/h")]).cache, Path::new("/h/hub"));
        assert_eq!(with(&[("HF_HUB_CACHE", "/b"), ("HUGGINGFACE_HUB_CACHE", "/c")]).cache, Path::new("/b"));
        assert!(!with(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert_eq!(with(&[("HF_TOKEN", "sesame"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        assert!(!format!("{all:?}").contains("sesame"), "a token is not printed");
    }
}
