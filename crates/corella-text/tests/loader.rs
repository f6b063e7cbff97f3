//! The loader's promises: every token once per epoch on any number of ranks, one order for all batch sizes, resume.

use std::path::{Path, PathBuf};

use corella_text::data::{DataError, Loader, LoaderOptions, Order, TokenStream, read_shard, write_shard};
use corella_text::tokenizer::Tokenizer;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("corella-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn counting(n: u32) -> TokenStream {
    TokenStream::in_memory((0..n).collect())
}

fn loader(stream: &TokenStream, options: LoaderOptions) -> Loader {
    Loader::new(stream.clone(), options).expect("long enough")
}

/// Inputs and targets of the next `batches` batches of `b` windows, window by window.
fn windows(loader: &mut Loader, batches: usize, b: usize, t: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let (mut x, mut y) = (vec![0; b * t], vec![0; b * t]);
    let mut seen = Vec::new();
    for _ in 0..batches {
        loader.next_batch(b, &mut x, &mut y).expect("readable");
        seen.extend(x.chunks(t).zip(y.chunks(t)).map(|(x, y)| (x.to_vec(), y.to_vec())));
    }
    seen
}

/// First tokens of the windows, whose targets are one further: for a stream that counts.
fn firsts(loader: &mut Loader, batches: usize, b: usize, t: usize) -> Vec<u32> {
    let seen = windows(loader, batches, b, t);
    assert!(seen.iter().all(|(x, y)| x.iter().zip(y).all(|(x, y)| *y == x + 1)), "targets are one token further");
    seen.into_iter().map(|(x, _)| x[0]).collect()
}

fn sorted(mut all: Vec<u32>) -> Vec<u32> {
    all.sort_unstable();
    all
}

#[test]
fn an_epoch_visits_every_window_once_and_the_next_in_another_order() {
    let mut loader = loader(&counting(1001), LoaderOptions::new(10, 7));
    let first = firsts(&mut loader, 100, 1, 10);
    let second = firsts(&mut loader, 100, 1, 10);
    assert_eq!(sorted(first.clone()), (0..100).map(|w| w * 10).collect::<Vec<_>>());
    assert_ne!(first, second);
    assert_eq!(loader.epoch(), 2);
}

#[test]
fn ranks_share_an_epoch_and_their_number_changes_no_order() {
    let (t, b, epoch) = (5, 4, 120);
    let documents: Vec<u32> = (0..601).map(|i| if i % 23 == 0 || i % 57 == 3 { 0 } else { i + 1 }).collect();
    for order in [Order::File, Order::Windows, Order::Documents] {
        let stream = TokenStream::in_memory(documents.clone());
        let options = LoaderOptions { order, ..LoaderOptions::new(t, 11) };
        let alone = windows(&mut loader(&stream, options), 2 * epoch / b, b, t);
        for world in [1, 2, 3, 8] {
            // Batches of all ranks together are those of one rank: two epochs, and what is over.
            let mut ranks: Vec<Loader> =
                (0..world).map(|rank| loader(&stream, LoaderOptions { rank, world, ..options })).collect();
            let together: Vec<_> = (0..2 * epoch / (b * world))
                .flat_map(|_| ranks.iter_mut().flat_map(|r| windows(r, 1, b, t)).collect::<Vec<_>>())
                .collect();
            assert_eq!(together, alone[..together.len()], "{order:?} on {world} ranks");
            assert!(ranks.iter().all(|rank| rank.state() == ranks[0].state()));
        }
        // Each epoch holds every token as an input but the last, and as a target but the first.
        for part in alone.chunks(epoch) {
            let inputs = sorted(part.iter().flat_map(|(x, _)| x.clone()).collect());
            if order == Order::Documents {
                // Another document is last in every epoch: its last token is the one that is no input.
                let all = sorted(documents.clone());
                let missing: Vec<&u32> =
                    all.iter().filter(|token| **token != 0 && inputs.binary_search(token).is_err()).collect();
                assert!(inputs.len() == all.len() - 1 && missing.len() <= 1);
            } else {
                assert_eq!(inputs, sorted(documents[..600].to_vec()));
            }
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let stream = counting(2001);
    let options = LoaderOptions::new(8, 3);
    let alone = firsts(&mut loader(&stream, options), 300, 1, 8);
    let mut two: Vec<Loader> =
        (0..2).map(|rank| loader(&stream, LoaderOptions { rank, world: 2, ..options })).collect();
    let mut seen: Vec<u32> =
        (0..20).flat_map(|_| two.iter_mut().flat_map(|r| firsts(r, 1, 3, 8)).collect::<Vec<_>>()).collect();
    let mut three: Vec<Loader> =
        (0..3).map(|rank| loader(&stream, LoaderOptions { rank, world: 3, ..options })).collect();
    three.iter_mut().for_each(|r| r.restore(&two[0].state()).expect("the same data"));
    seen.extend((0..20).flat_map(|_| three.iter_mut().flat_map(|r| firsts(r, 1, 3, 8)).collect::<Vec<_>>()));
    assert_eq!(seen, alone);
}

#[test]
fn documents_stay_together_and_come_in_another_order_every_epoch() {
    // Documents of the letters' numbers, each behind a 0.
    let lengths = [3, 7, 1, 12, 5, 2, 9, 4];
    let tokens: Vec<u32> =
        (1u32..).zip(lengths).flat_map(|(name, n)| std::iter::once(0).chain(std::iter::repeat_n(name, n))).collect();
    let options = LoaderOptions { order: Order::Documents, ..LoaderOptions::new(6, 2) };
    let mut loader = loader(&TokenStream::in_memory(tokens.clone()), options);
    let per_epoch = loader.state().windows as usize;
    assert_eq!(per_epoch, (tokens.len() - 1) / 6);
    let mut orders = Vec::new();
    for _ in 0..4 {
        let epoch = windows(&mut loader, per_epoch, 1, 6);
        let flat: Vec<u32> = epoch.iter().flat_map(|(x, _)| x.clone()).collect();
        let mut order: Vec<u32> = flat.iter().copied().filter(|token| *token != 0).collect();
        order.dedup();
        // Every name comes in one run: no document is torn apart between the windows.
        let mut distinct = order.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), order.len());
        orders.push(order);
    }
    assert!(orders.windows(2).any(|pair| pair[0] != pair[1]));
    let packing = loader.packing().expect("readable");
    assert_eq!((packing.documents, packing.left_out), (8, (tokens.len() - 1 - 6 * per_epoch) as u64));
    // Counted by hand: tokens 0-3, 4-11, 12-13, 14-26, 27-32, 33-35, 36-45, 46-50 in windows of 6.
    assert_eq!(packing.cut, 5);
}

#[test]
fn llm_cs_order_gives_every_rank_its_lane() {
    let stream = counting(1001);
    let options = LoaderOptions { order: Order::LlmC, llm_c_batch: 4, ..LoaderOptions::new(5, 0) };
    let mut one = loader(&stream, options);
    assert_eq!(one.state().windows, 200);
    // 50 samples of 20 tokens: NumPy's twister with the seed 42 and llm.c's rule begin with 0, 34, 29.
    let seen = firsts(&mut one, 3, 4, 5);
    let expected: Vec<u32> = [0, 34, 29].iter().flat_map(|s| (0..4).map(move |lane| s * 20 + lane * 5)).collect();
    assert_eq!(seen, expected);
    for world in [2, 3] {
        let mut all = Vec::new();
        for rank in 0..world {
            let mut loader = loader(&stream, LoaderOptions { rank, world, ..options });
            let per_rank = loader.state().windows as usize / world / 4;
            all.extend(firsts(&mut loader, per_rank, 4, 5));
        }
        let used = 1000 / (20 * world) * 4 * world;
        assert_eq!(sorted(all), (0..used as u32).map(|w| w * 5).collect::<Vec<_>>());
    }
}

#[test]
fn the_order_does_not_depend_on_the_batch_size_and_a_resume_continues_it() {
    let data = counting(1000);
    let make = || loader(&data, LoaderOptions::new(8, 3));
    let whole = firsts(&mut make(), 200, 1, 8);
    assert_eq!(whole, firsts(&mut make(), 50, 4, 8));
    let mut before = make();
    let mut seen = firsts(&mut before, 33, 1, 8);
    let mut after = make();
    after.restore(&before.state()).expect("same data");
    seen.extend(firsts(&mut after, 167, 1, 8));
    assert_eq!(whole, seen);
    // Back to where it was, as a step does that was cut short: what was read ahead is not handed out.
    let mut back = make();
    let start = back.state();
    firsts(&mut back, 5, 2, 8);
    back.restore(&start).expect("same data");
    assert_eq!(firsts(&mut back, 10, 2, 8), whole[..20]);
    let mut other = loader(&data, LoaderOptions::new(9, 3));
    assert!(matches!(other.restore(&before.state()), Err(DataError::OtherData(_))));
}

#[test]
fn too_little_data_is_an_error() {
    let stream = TokenStream::in_memory(vec![1; 8]);
    for order in [Order::Windows, Order::LlmC] {
        let options = LoaderOptions { order, ..LoaderOptions::new(8, 0) };
        assert!(matches!(Loader::new(stream.clone(), options), Err(DataError::TooShort { .. })));
    }
}

/// The same tokens in memory, in three shards of either width, and in nanoGPT's form give the same batches.
#[test]
fn files_are_read_as_memory_is() {
    let folder = Folder::new("loader-files");
    let tokens: Vec<u32> = (0..3000).map(|i| i * 7 % 1000).collect();
    let options = LoaderOptions::new(16, 5);
    let expected = windows(&mut loader(&TokenStream::in_memory(tokens.clone()), options), 50, 8, 16);
    for vocab_size in [50_257, 128_256] {
        let paths: Vec<PathBuf> = (0..3).map(|i| folder.0.join(format!("train_{i:06}.bin"))).collect();
        for (path, part) in paths.iter().zip([&tokens[..1001], &tokens[1001..1500], &tokens[1500..]]) {
            write_shard(path, part, vocab_size).expect("written");
        }
        let stream = TokenStream::open(&paths, vocab_size).expect("whole");
        assert_eq!((stream.len(), stream.shards()), (3000, vec![1001, 499, 1500]));
        assert_eq!(windows(&mut loader(&stream, options), 50, 8, 16), expected);
        assert_eq!(
            stream.documents(7).expect("readable"),
            TokenStream::in_memory(tokens.clone()).documents(7).expect("readable")
        );
    }
    let plain = folder.0.join("nano.bin");
    std::fs::write(&plain, tokens.iter().flat_map(|t| (*t as u16).to_le_bytes()).collect::<Vec<_>>()).expect("written");
    let stream = TokenStream::open(&[plain], 1000).expect("whole");
    assert_eq!(windows(&mut loader(&stream, options), 50, 8, 16), expected);
}

#[test]
fn ids_outside_the_vocabulary_and_files_cut_while_in_use_are_errors() {
    let folder = Folder::new("loader-broken");
    let path = folder.0.join("train_000000.bin");
    let tokens: Vec<u32> = (0..5000).collect();
    write_shard(&path, &tokens, 50_257).expect("written");
    let (mut x, mut y) = (vec![0; 16], vec![0; 16]);
    let open = |vocab_size| TokenStream::open(std::slice::from_ref(&path), vocab_size).expect("whole");
    let options = LoaderOptions { order: Order::File, ..LoaderOptions::new(16, 0) };
    let mut small = loader(&open(100), options);
    for _ in 0..6 {
        small.next_batch(1, &mut x, &mut y).expect("ids below 100");
    }
    let error = small.next_batch(1, &mut x, &mut y).expect_err("id 100");
    assert!(error.to_string().contains("token 100 at place 100 is outside the vocabulary of 100"), "{error}");
    let mut cut = loader(&open(50_257), options);
    std::fs::File::options().write(true).open(&path).expect("open").set_len(1100).expect("cut");
    cut.next_batch(1, &mut x, &mut y).expect("still there");
    cut.next_batch(1, &mut x, &mut y).expect("still there");
    assert!(matches!(cut.next_batch(1, &mut x, &mut y), Err(DataError::Io { .. })));
}

#[test]
fn ready_made_files_are_found_by_their_names() {
    let folder = Folder::new("loader-ready");
    let write =
        |name: &str, n: u32| write_shard(&folder.0.join(name), &(0..n).collect::<Vec<_>>(), 50_257).expect("written");
    write("fineweb_val_000000.bin", 50);
    write("fineweb_train_000002.bin", 70);
    write("fineweb_train_000001.bin", 60);
    std::fs::write(folder.0.join("README.md"), "not tokens").expect("written");
    let open = |path: &Path| corella_text::data::Dataset::open_token_files(path, Tokenizer::gpt2());
    let data = open(&folder.0).expect("found");
    assert_eq!((data.train.shards(), data.val.len()), (vec![60, 70], 50));
    let one = open(&folder.0.join("fineweb_train_000001.bin")).expect("found");
    assert_eq!((one.train.len(), one.val.len()), (60, 0));
}

#[test]
fn shards_come_back_and_broken_ones_are_refused() {
    let folder = Folder::new("shard");
    let path = folder.0.join("train_000000.bin");
    for vocab_size in [50_257, 128_256] {
        let tokens: Vec<u32> = (0..5000).map(|i| i * 7919 % vocab_size as u32).collect();
        write_shard(&path, &tokens, vocab_size).expect("written");
        assert_eq!(read_shard(&path, vocab_size).expect("read"), tokens);
        assert!(read_shard(&path, 100).is_err(), "ids outside the vocabulary");
    }
    let whole = std::fs::read(&path).expect("read");
    for broken in [&whole[..whole.len() - 1], &whole[..1000], &[&[0; 4][..], &whole[4..]].concat()] {
        std::fs::write(&path, broken).expect("written");
        assert!(read_shard(&path, 128_256).is_err());
    }
    // Without a header a file is nanoGPT's, if its size allows.
    assert!(TokenStream::open(std::slice::from_ref(&path), 128_256).is_ok());
    std::fs::write(&path, &whole[..1025]).expect("written");
    assert!(matches!(TokenStream::open(&[path], 128_256), Err(DataError::Bad { .. })));
}

#[test]
fn tokens_beyond_16_bits_are_stored_in_32() {
    let folder = Folder::new("shard-wide");
    let path = folder.0.join("train_000000.bin");
    let stored = |tokens: &[u32], vocab_size: usize| {
        write_shard(&path, tokens, vocab_size).expect("written");
        assert_eq!(read_shard(&path, vocab_size).expect("read"), tokens);
        let stream = TokenStream::open(std::slice::from_ref(&path), vocab_size).expect("whole");
        assert_eq!(stream.to_vec().expect("read"), tokens);
        std::fs::read(&path).expect("read")
    };
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let wide = stored(&[65_536, 128_255], 128_256);
    assert_eq!((wide.len(), word(&wide, 0), word(&wide, 4), word(&wide, 8)), (1024 + 8, 20_240_801, 7, 2));
    assert_eq!((word(&wide, 1024), word(&wide, 1028)), (65_536, 128_255));
    // On either side of the border.
    let narrow = stored(&[65_535], 65_536);
    assert_eq!((narrow.len(), word(&narrow, 0), word(&narrow, 4)), (1024 + 2, 20_240_520, 1));
    assert_eq!(stored(&[65_536], 65_537).len(), 1024 + 4);
}

#[test]
fn seeds_give_other_orders() {
    // All tokens differ but the ends of the documents.
    let tokens: Vec<u32> = (0..2000).map(|i| if i % 9 == 0 { 0 } else { i }).collect();
    for order in [Order::Windows, Order::Documents] {
        let first = |seed| {
            let options = LoaderOptions { order, ..LoaderOptions::new(8, seed) };
            windows(&mut loader(&TokenStream::in_memory(tokens.clone()), options), 1, 4, 8)
        };
        assert_eq!(first(1), first(1), "{order:?}");
        assert_ne!(first(1), first(2), "{order:?}");
        assert_ne!(first(0), first(1), "{order:?}");
    }
}

#[test]
fn what_stands_in_front_of_the_first_end_of_text_is_a_document() {
    // Of 3, 1 and 5 tokens and their ends; the first has none in front of it.
    let tokens = vec![11, 12, 13, 0, 21, 0, 31, 32, 33, 34, 35];
    let stream = TokenStream::in_memory(tokens);
    assert_eq!(stream.documents(0).expect("readable"), [0, 3, 5]);
    let options = LoaderOptions { order: Order::Documents, ..LoaderOptions::new(2, 1) };
    let mut loader = loader(&stream, options);
    let mut last = Vec::new();
    for _ in 0..20 {
        let epoch = windows(&mut loader, 5, 1, 2);
        let mut seen: Vec<u32> = epoch.iter().flat_map(|(x, _)| x.clone()).collect();
        seen.push(epoch[4].1[1]);
        let at = |token| seen.iter().position(|t| *t == token).expect("every token is there");
        assert_eq!((at(12), at(13)), (at(11) + 1, at(11) + 2), "{seen:?}");
        assert_eq!((seen.len(), seen[at(21) - 1], seen[at(31) - 1], at(35)), (11, 0, 0, at(31) + 4), "{seen:?}");
        last.push(seen[10]);
    }
    assert!(last.contains(&13) && last.contains(&21) && last.contains(&35), "any of them may come last: {last:?}");
}

#[test]
fn a_position_of_other_data_is_refused_with_what_differs() {
    let saved = loader(&counting(1001), LoaderOptions::new(10, 7)).state();
    let options = LoaderOptions { order: Order::File, ..LoaderOptions::new(10, 8) };
    let error = loader(&counting(901), options).restore(&saved).expect_err("other data");
    let expected = "the saved position belongs to other data: seed 7, here 8; order windows, here file; 100 sequences an epoch, here 90";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_mark_tells_other_tokens_of_the_same_number() {
    let mark = |tokens: Vec<u32>| TokenStream::in_memory(tokens).mark().expect("readable");
    // More than are read whole, and fewer.
    for n in [(1u32 << 22) + 70_001, 30_001, 1] {
        let tokens: Vec<u32> = (0..n).collect();
        let with = |place: usize| {
            let mut other = tokens.clone();
            other[place] += 1;
            mark(other)
        };
        assert_eq!(mark(tokens.clone()), mark(tokens.clone()));
        assert_ne!(with(0), mark(tokens.clone()), "the first of {n}");
        assert_ne!(with(n as usize - 1), mark(tokens.clone()), "the last of {n}");
        assert_ne!(mark(tokens.iter().map(|t| t ^ 1).collect()), mark(tokens.clone()));
        assert_ne!(mark((0..n + 1).collect()), mark(tokens));
    }
    assert_ne!(mark(vec![0]), mark(Vec::new()));
}

#[test]
fn a_shard_of_an_unknown_version_is_no_file_of_bare_tokens() {
    let folder = Folder::new("version");
    let path = folder.0.join("train.bin");
    write_shard(&path, &[1, 2, 3, 4], 300).expect("written");
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[4..8].copy_from_slice(&99u32.to_le_bytes());
    std::fs::write(&path, &bytes).expect("written");
    let expected = "a token shard of llm.c in version 99; 1 is read";
    // A vocabulary in which every 16-bit number is a token.
    let opened = TokenStream::open(std::slice::from_ref(&path), 1 << 16).map(|stream| stream.len());
    assert!(opened.as_ref().is_err_and(|e| e.to_string().contains(expected)), "{opened:?}");
    let read = read_shard(&path, 1 << 16);
    assert!(read.as_ref().is_err_and(|e| e.to_string().contains(expected)), "{read:?}");
    assert!(corella_text::data::is_token_file(&path));
    let files = [corella_text::data::readers::SourceFile::at(&path)];
    let out = folder.0.join("out");
    let prepared = corella_text::data::prepare_tokens(&files, &Tokenizer::gpt2(), &out, 1000, false);
    assert!(prepared.as_ref().is_err_and(|e| e.to_string().contains(expected)), "{prepared:?}");
}

#[test]
fn a_position_in_llm_cs_order_holds_for_its_batch_alone() {
    let options = |b| LoaderOptions { order: Order::LlmC, llm_c_batch: b, ..LoaderOptions::new(5, 0) };
    let stream = counting(201);
    let mut before = loader(&stream, options(2));
    firsts(&mut before, 3, 2, 5);
    // 40 windows an epoch either way.
    let refused = loader(&stream, options(4)).restore(&before.state()).expect_err("other windows").to_string();
    assert!(refused.contains("batches of 2 sequences, here 4"), "{refused}");
    let mut after = loader(&stream, options(2));
    after.restore(&before.state()).expect("the same batch");
    assert_eq!(firsts(&mut after, 9, 2, 5), firsts(&mut before, 9, 2, 5));
    // A state of an earlier version does not say.
    let mut old = serde_json::to_value(before.state()).expect("JSON");
    old.as_object_mut().expect("an object").remove("batch");
    after.restore(&serde_json::from_value(old).expect("a state")).expect("as before");
}
