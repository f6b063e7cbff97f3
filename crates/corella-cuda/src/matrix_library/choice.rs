//! Which of the library's algorithms computes a product. Its first choice is often 5 to 20 % slower than the fastest of the
//! candidates that it names, so large products that come again and again are tried.
//!
//! Algorithms add up in different orders, and a measurement may end either way where two are close. So a choice is kept: in this
//! process, where every backend takes the same; on disk, where every later one finds it; and in a run's checkpoints, whose
//! choices come before those on disk. The same bits come from run to run as long as the file is there: on another card, with
//! another version of the library, or after the folder was emptied, a product is measured anew, and a run that is repeated
//! there may differ in the last bits; one that is resumed may on another card or with another library only. A choice that
//! cannot be kept is not used: without a folder, or one that can be written, the library's first choice is taken every time,
//! as it is where the driver cannot take times.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use corella_ops::Choices;

use super::key::Key;
use crate::cache;

/// What names an algorithm: opaque, and valid for one version of the library and one kind of card.
pub type Algorithm = [u64; 8];

/// Candidates that are tried.
pub const CANDIDATES: usize = 8;
/// Timed runs of each.
pub const RUNS: usize = 5;

/// How many times the least time counts as equal: the clocks of a card move by as much from one run to the next, and of what is
/// equal the library's order is the better guess for a step, in which other kernels run between.
const CLOSE: f32 = 1.03;

/// What the library says and the card does about one product.
pub trait Trials {
    /// At most `count` algorithms, the first choice first; none where the library has none.
    fn candidates(&self, count: usize) -> Vec<Algorithm>;
    /// Whether the library takes an algorithm for this product and with the memory that there is.
    fn accepts(&self, algorithm: &Algorithm) -> bool;
    /// Whether times can be taken.
    fn takes_time(&self) -> bool;
    /// How long each of several runs takes, or none where it does not run. Called only for products that replace their result.
    fn time(&self, algorithm: &Algorithm) -> Option<[f32; RUNS]>;
}

type Known = Mutex<HashMap<String, Algorithm>>;

/// Choices of this process, of all cards.
static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

/// Chooses for one kind of card and version of the library.
pub struct Chooser {
    machine: String,
    /// None where nothing can be kept.
    folder: Option<PathBuf>,
    known: &'static Known,
}

impl Chooser {
    /// For a card, by name and architecture, and a version of the library.
    pub fn new(card: &str, version: usize) -> Chooser {
        Chooser { machine: format!("{card}, cuBLASLt {version}"), folder: cache::folder(), known: &KNOWN }
    }

    /// The algorithm for a product: the kept one, or the fastest, which is kept; the first choice for those that are not
    /// measured. A product that adds to its result, which trying would change, takes what was chosen for the one that replaces
    /// it, and the first choice where that did not come before. None where the library has none.
    pub fn algorithm(&self, key: &Key, trials: &impl Trials) -> Option<Algorithm> {
        if !key.measured {
            return trials.candidates(1).first().copied();
        }
        let name = self.name(key);
        if let Some(found) = self.find(&name, trials) {
            return Some(found);
        }
        let folder = self.folder.as_deref().filter(|_| trials.takes_time());
        let candidates = trials.candidates(if folder.is_some() { CANDIDATES } else { 1 });
        let first = *candidates.first()?;
        let kept = folder.and_then(|folder| {
            let chosen = if key.adds() {
                let plain = self.name(&key.plain());
                // The first choice is kept too, so that it stays when the other is measured later.
                self.find(&plain, trials).or(Some(first))
            } else {
                fastest(&candidates, |candidate| trials.time(candidate))
            };
            self.keep(folder, &name, &chosen?, trials)
        });
        // The first choice, too, is what a run goes on with.
        Some(kept.unwrap_or_else(|| self.remember(&name, first, trials)))
    }

    /// Choices of this process, as a checkpoint holds them: the words of an algorithm as hexadecimal digits, by the card, the
    /// library and the product.
    pub fn choices(&self) -> Choices {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.iter().filter(|(name, _)| self.owns(name));
        own.map(|(name, algorithm)| (name.clone(), algorithm.map(|word| format!("{word:016x}")).join(" "))).collect()
    }

    /// Takes choices of a run that goes on, in the place of what is known or on disk.
    pub fn take(&self, choices: &Choices) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, words) in choices.iter().filter(|(name, _)| self.owns(name)) {
            let words: Result<Vec<u64>, _> = words.split(' ').map(|word| u64::from_str_radix(word, 16)).collect();
            // What is not eight numbers is measured anew, as what is not there.
            if let Some(algorithm) = words.ok().and_then(|words| Algorithm::try_from(words).ok()) {
                known.insert(name.clone(), algorithm);
            }
        }
    }

    /// Whether a choice is one for this card and library.
    fn owns(&self, name: &str) -> bool {
        name.strip_prefix(&self.machine).is_some_and(|rest| rest.starts_with(", "))
    }

    fn name(&self, key: &Key) -> String {
        format!("{}, {key}", self.machine)
    }

    /// A choice that was made before, in this process or another.
    fn find(&self, name: &str, trials: &impl Trials) -> Option<Algorithm> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if let Some(known) = known.filter(|known| trials.accepts(known)) {
            return Some(known);
        }
        let found =
            unpack(name, &cache::read(&path(self.folder.as_deref()?, name))?).filter(|found| trials.accepts(found))?;
        Some(self.remember(name, found, trials))
    }

    /// Keeps a choice, unless another process or thread has kept one meanwhile. Returns the one that is kept, or none where
    /// the folder takes nothing.
    fn keep(&self, folder: &Path, name: &str, chosen: &Algorithm, trials: &impl Trials) -> Option<Algorithm> {
        let usable = |there: &[u8]| unpack(name, there).is_some_and(|there| trials.accepts(&there));
        let kept = cache::keep_first(&path(folder, name), pack(name, chosen), usable).ok()?;
        Some(self.remember(name, unpack(name, &kept)?, trials))
    }

    /// What this process takes from now on: what another thread has found meanwhile, or `found`.
    fn remember(&self, name: &str, found: Algorithm, trials: &impl Trials) -> Algorithm {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(name).copied().filter(|known| trials.accepts(known)) {
            Some(known) => known,
            None => {
                known.insert(name.to_owned(), found);
                found
            }
        }
    }
}

/// The first candidate whose median time is within [`CLOSE`] of the least; those that do not run are left out.
fn fastest(candidates: &[Algorithm], mut time: impl FnMut(&Algorithm) -> Option<[f32; RUNS]>) -> Option<Algorithm> {
    let median = |mut times: [f32; RUNS]| {
        times.sort_by(f32::total_cmp);
        times[RUNS / 2]
    };
    let timed: Vec<(f32, Algorithm)> =
        candidates.iter().filter_map(|candidate| Some((median(time(candidate)?), *candidate))).collect();
    let least = timed.iter().map(|(time, _)| *time).min_by(f32::total_cmp)?;
    timed.iter().find(|(time, _)| *time <= least * CLOSE).map(|(_, candidate)| *candidate)
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("product-{:016x}.algorithm", cache::hash(&[name.as_bytes()])))
}

/// A choice as a file holds it: the name, so that no other product takes it, and the algorithm.
fn pack(name: &str, algorithm: &Algorithm) -> Vec<u8> {
    let words = algorithm.iter().flat_map(|word| word.to_le_bytes());
    name.bytes().chain(*b"\n").chain(words).collect()
}

fn unpack(name: &str, content: &[u8]) -> Option<Algorithm> {
    let words = content.strip_prefix(name.as_bytes())?.strip_prefix(b"\n")?;
    let mut algorithm = Algorithm::default();
    if words.len() != size_of_val(&algorithm) {
        return None;
    }
    for (word, bytes) in algorithm.iter_mut().zip(words.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(algorithm)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::cache::TestFolder;
    use crate::driver::{Finish, Product};
    use crate::matrix_library::tests::product;

    /// Candidates that take so many milliseconds, or do not run; algorithm i is named by eight words of i.
    struct Card {
        times: Vec<Option<[f32; RUNS]>>,
        refused: Option<Algorithm>,
        clock: bool,
        tries: Cell<usize>,
    }

    fn named(i: u64) -> Algorithm {
        [i; 8]
    }

    fn card(times: &[f32]) -> Card {
        Card {
            times: times.iter().map(|t| Some([*t; RUNS])).collect(),
            refused: None,
            clock: true,
            tries: Cell::new(0),
        }
    }

    impl Trials for Card {
        fn candidates(&self, count: usize) -> Vec<Algorithm> {
            (0..self.times.len().min(count) as u64).map(named).collect()
        }

        fn accepts(&self, algorithm: &Algorithm) -> bool {
            self.refused != Some(*algorithm)
        }

        fn takes_time(&self) -> bool {
            self.clock
        }

        fn time(&self, algorithm: &Algorithm) -> Option<[f32; RUNS]> {
            self.tries.set(self.tries.get() + 1);
            self.times[algorithm[0] as usize]
        }
    }

    /// A process of its own: nothing known but what the folder keeps.
    fn process(folder: Option<&TestFolder>, machine: (&str, usize)) -> Chooser {
        let known = Box::leak(Box::default());
        Chooser { folder: folder.map(|folder| folder.0.clone()), known, ..Chooser::new(machine.0, machine.1) }
    }

    const MACHINE: (&str, usize) = ("NVIDIA H200 sm_90", 130_100);

    fn large() -> Product {
        Product { measured: true, ..product(4096, 3072, 768, false, true) }
    }

    #[test]
    fn the_fastest_is_the_one_with_the_least_median() {
        let times = [
            // Least of all once, and least on average, but not in the middle.
            Some([0.1, 0.1, 5.0, 5.0, 5.0]),
            None,
            Some([9.0, 4.0, 9.0, 4.0, 4.0]),
            Some([4.0, 4.0, 4.0, 4.0, 4.0]),
        ];
        let candidates: Vec<Algorithm> = (0..4).map(named).collect();
        let of = |times: &[Option<[f32; RUNS]>]| fastest(&candidates, |c| times[c[0] as usize]);
        assert_eq!(of(&times), Some(named(2)), "of equal ones the first, without the one that does not run");
        let of_medians = |medians: [f32; 4]| of(&medians.map(|median| Some([median; RUNS])));
        assert_eq!(of_medians([1.02, 1.2, 1.01, 1.0]), Some(named(0)), "hardly slower than the fastest, and before it");
        assert_eq!(of_medians([1.04, 1.2, 1.01, 1.0]), Some(named(2)));
        assert_eq!(of(&[None; 4]), None);
        assert_eq!(fastest(&[], |_| None), None);
    }

    #[test]
    fn what_was_measured_is_found_again_here_and_in_another_process() {
        let folder = TestFolder::new("choices-found");
        let key = Key::of(&large());
        let here = process(Some(&folder), MACHINE);
        assert_eq!(here.algorithm(&key, &card(&[3.0, 1.0, 2.0])), Some(named(1)));
        // Times that would lead elsewhere are not asked for.
        let later = card(&[1.0, 2.0, 3.0]);
        assert_eq!(here.algorithm(&key, &later), Some(named(1)));
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&key, &later), Some(named(1)));
        assert_eq!(later.tries.get(), 0);
        // The process keeps to it without the file.
        fs::remove_dir_all(&folder.0).expect("the folder");
        assert_eq!(here.algorithm(&key, &later), Some(named(1)));
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&key, &later), Some(named(0)));
    }

    #[test]
    fn of_two_that_measure_at_once_both_take_what_is_kept_first() {
        let folder = TestFolder::new("choices-both");
        let (one, other) = (process(Some(&folder), MACHINE), process(Some(&folder), MACHINE));
        let (name, trials) = (one.name(&Key::of(&large())), card(&[]));
        assert_eq!(one.keep(&folder.0, &name, &named(4), &trials), Some(named(4)));
        assert_eq!(other.keep(&folder.0, &name, &named(5), &trials), Some(named(4)));
    }

    #[test]
    fn every_other_card_version_and_product_measures_for_itself() {
        let folder = TestFolder::new("choices-others");
        let p = large();
        let slow_first = [2.0, 1.0];
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&Key::of(&p), &card(&slow_first)), Some(named(1)));
        for machine in [("NVIDIA H100 sm_90", 130_100), ("NVIDIA H200 sm_90", 130_101)] {
            let trials = card(&[1.0, 2.0]);
            assert_eq!(process(Some(&folder), machine).algorithm(&Key::of(&p), &trials), Some(named(0)));
            assert_eq!(trials.tries.get(), 2);
        }
        let bias = Finish::Bias(crate::driver::Bias { f32: 256, bf16: None });
        let turned = |at| crate::driver::Operand { at, transposed: true };
        let others = [
            Product { m: 4097, ..p },
            Product { n: 3080, ..p },
            Product { k: 769, ..p },
            Product { out_stride: 4096, ..p },
            Product { a: turned(256), ..p },
            Product { out_dtype: corella_ops::Dtype::F32, ..p },
            Product { dtype: corella_ops::Dtype::F32, ..p },
            Product { finish: bias, ..p },
        ];
        for other in others {
            let trials = card(&[1.0, 2.0]);
            assert_eq!(
                process(Some(&folder), MACHINE).algorithm(&Key::of(&other), &trials),
                Some(named(0)),
                "{other:?}"
            );
        }
        // Addresses do not matter.
        let moved = Product { out: 4096, ..p };
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&Key::of(&moved), &card(&[1.0, 2.0])), Some(named(1)));
    }

    #[test]
    fn a_file_that_is_damaged_foreign_or_refused_is_measured_anew_and_replaced() {
        let folder = TestFolder::new("choices-damaged");
        let key = Key::of(&large());
        let at = path(&folder.0, &process(Some(&folder), MACHINE).name(&key));
        let chosen = |times: &[f32]| process(Some(&folder), MACHINE).algorithm(&key, &card(times));
        assert_eq!(chosen(&[2.0, 1.0]), Some(named(1)));
        let whole = fs::read(&at).expect("the file");
        let mut damaged = whole.clone();
        damaged[whole.len() - 20] ^= 1;
        for file in [&whole[..whole.len() - 1], &[], &damaged] {
            fs::write(&at, file).expect("the file");
            assert_eq!(chosen(&[1.0, 2.0]), Some(named(0)));
            fs::write(&at, file).expect("the file");
            assert_eq!(chosen(&[2.0, 1.0]), Some(named(1)));
            assert_eq!(fs::read(&at).expect("the file"), whole, "the bad file is replaced");
        }
        // Whole, but of another product, of another length.
        for foreign in [pack("another product", &named(7)), whole[..whole.len() - 16].to_vec()] {
            cache::keep(&at, &foreign).expect("the file");
            assert_eq!(chosen(&[1.0, 2.0]), Some(named(0)));
            assert_eq!(process(Some(&folder), MACHINE).algorithm(&key, &card(&[2.0, 1.0])), Some(named(0)), "replaced");
        }
        // Known here and kept there, and refused now.
        let here = process(Some(&folder), MACHINE);
        assert_eq!(here.algorithm(&key, &card(&[2.0, 1.0])), Some(named(0)));
        let refuses = Card { refused: Some(named(0)), ..card(&[9.0, 1.0]) };
        assert_eq!(here.algorithm(&key, &refuses), Some(named(1)));
        assert_eq!(chosen(&[1.0, 9.0]), Some(named(1)));
    }

    #[test]
    fn what_adds_takes_the_choice_of_what_replaces_and_is_never_tried() {
        let folder = TestFolder::new("choices-add");
        let (plain, adds) = (Key::of(&large()), Key::of(&Product { finish: Finish::Add, ..large() }));
        let trials = card(&[3.0, 2.0, 1.0]);
        let here = process(Some(&folder), MACHINE);
        assert_eq!(here.algorithm(&plain, &trials), Some(named(2)));
        let tries = trials.tries.get();
        assert_eq!(here.algorithm(&adds, &trials), Some(named(2)));
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&adds, &trials), Some(named(2)));
        assert_eq!(trials.tries.get(), tries);
        // The other way round the first choice is taken, and stays.
        let folder = TestFolder::new("choices-add-first");
        let here = process(Some(&folder), MACHINE);
        assert_eq!(here.algorithm(&adds, &trials), Some(named(0)));
        assert_eq!(here.algorithm(&plain, &trials), Some(named(2)));
        assert_eq!(here.algorithm(&adds, &trials), Some(named(0)));
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&adds, &trials), Some(named(0)));
        // As it is where the library takes the other's choice for what replaces only.
        let folder = TestFolder::new("choices-add-refused");
        let here = process(Some(&folder), MACHINE);
        assert_eq!(here.algorithm(&plain, &trials), Some(named(2)));
        let refuses = Card { refused: Some(named(2)), ..card(&[3.0, 2.0, 1.0]) };
        assert_eq!(here.algorithm(&adds, &refuses), Some(named(0)));
    }

    #[test]
    fn a_run_that_goes_on_takes_its_choices_wherever_it_goes_on() {
        let folder = TestFolder::new("choices-taken");
        let (key, adds) = (Key::of(&large()), Key::of(&Product { finish: Finish::Add, ..large() }));
        let began = process(Some(&folder), MACHINE);
        assert_eq!(began.algorithm(&key, &card(&[3.0, 1.0, 2.0])), Some(named(1)));
        assert_eq!(began.algorithm(&adds, &card(&[9.0])), Some(named(1)));
        let saved = began.choices();
        assert_eq!(saved.len(), 2);
        // Where another one is on disk, where nothing is, and where nothing can be kept.
        let other = TestFolder::new("choices-taken-other");
        assert_eq!(process(Some(&other), MACHINE).algorithm(&key, &card(&[1.0, 9.0])), Some(named(0)));
        let none = TestFolder::new("choices-taken-none");
        for folder in [Some(&other), Some(&none), None] {
            let (goes_on, trials) = (process(folder, MACHINE), card(&[1.0, 9.0]));
            goes_on.take(&saved);
            assert_eq!(goes_on.algorithm(&key, &trials), Some(named(1)));
            assert_eq!(goes_on.algorithm(&adds, &trials), Some(named(1)));
            assert_eq!((trials.tries.get(), goes_on.choices()), (0, saved.clone()));
        }
        // A run that took the first choice, as nothing could be kept, goes on with it where something can.
        let bare = process(None, MACHINE);
        assert_eq!(bare.algorithm(&key, &card(&[9.0, 1.0])), Some(named(0)));
        let goes_on = process(Some(&none), MACHINE);
        goes_on.take(&bare.choices());
        assert_eq!(goes_on.algorithm(&key, &card(&[9.0, 1.0])), Some(named(0)));
        // As does one that began where no times could be taken.
        let (clockless, untimed) = (process(Some(&none), MACHINE), Card { clock: false, ..card(&[9.0, 1.0]) });
        assert_eq!(clockless.algorithm(&key, &untimed), Some(named(0)));
        assert_eq!((untimed.tries.get(), clockless.choices()), (0, bare.choices()));
        // Another machine, a library that refuses them, and what is no algorithm.
        let elsewhere = process(Some(&none), ("NVIDIA H200 sm_90", 130_101));
        elsewhere.take(&saved);
        assert!(elsewhere.choices().is_empty());
        let refuses = Card { refused: Some(named(1)), ..card(&[1.0, 9.0]) };
        let goes_on = process(Some(&none), MACHINE);
        goes_on.take(&saved);
        assert_eq!(goes_on.algorithm(&key, &refuses), Some(named(0)));
        let name = began.name(&key);
        for words in ["", "1 2 3", "x 2 3 4 5 6 7 8", "1 2 3 4 5 6 7 8 9", "1 2 3 4 5 6 7 fffffffffffffffff"] {
            let goes_on = process(None, MACHINE);
            goes_on.take(&Choices::from([(name.clone(), words.to_owned())]));
            assert!(goes_on.choices().is_empty(), "{words}");
        }
    }

    #[test]
    fn inference_small_products_and_what_cannot_be_kept_take_the_first_choice() {
        let folder = TestFolder::new("choices-small");
        let inference = Key::of(&Product { measured: false, ..large() });
        let small = Key::of(&Product { m: 1024, n: 1024, k: 512, out_stride: 1024, ..large() });
        let (large, trials) = (Key::of(&large()), card(&[2.0, 1.0]));
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&small, &trials), Some(named(0)));
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&inference, &trials), Some(named(0)));
        assert_eq!(process(None, MACHINE).algorithm(&large, &trials), Some(named(0)));
        assert_eq!(trials.tries.get(), 0);
        assert!(!folder.0.exists());
        // A file where the folder should be.
        fs::write(&folder.0, b"in the way").expect("a file");
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&large, &trials), Some(named(0)));
        assert_eq!(fs::read(&folder.0).expect("the file"), b"in the way");
        fs::remove_file(&folder.0).expect("the file");
        // No candidate at all, and none that runs.
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&large, &card(&[])), None);
        let none_runs = Card { times: vec![None, None], ..card(&[]) };
        assert_eq!(process(Some(&folder), MACHINE).algorithm(&large, &none_runs), Some(named(0)));
        assert!(!folder.0.exists(), "what was not measured is not kept");
    }
}
