//! The loader's promises: every window once per epoch, one order for all batch sizes, resume.

use std::sync::Arc;

use corella_text::data::{DataError, Loader, read_shard, write_shard};

/// First tokens of the next `batches` batches of `b` windows.
fn firsts(loader: &mut Loader, batches: usize, b: usize, t: usize) -> Vec<u32> {
    let (mut x, mut y) = (vec![0; b * t], vec![0; b * t]);
    let mut seen = Vec::new();
    for _ in 0..batches {
        loader.next_batch(b, &mut x, &mut y);
        assert!(x.iter().zip(&y).all(|(x, y)| y == &(x + 1)), "targets are one token further");
        seen.extend(x.chunks(t).map(|w| w[0]));
    }
    seen
}

#[test]
fn an_epoch_visits_every_window_once_and_the_next_in_another_order() {
    let mut loader = Loader::new(Arc::new((0..1001).collect()), 10, 7, true).expect("long enough");
    let first = firsts(&mut loader, 100, 1, 10);
    let second = firsts(&mut loader, 100, 1, 10);
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).map(|w| w * 10).collect::<Vec<_>>());
    assert_ne!(first, second);
}

#[test]
fn the_order_does_not_depend_on_the_batch_size_and_a_resume_continues_it() {
    let data = Arc::new((0..1000).collect::<Vec<u32>>());
    let make = || Loader::new(Arc::clone(&data), 8, 3, true).expect("long enough");
    let whole = firsts(&mut make(), 200, 1, 8);
    assert_eq!(whole, firsts(&mut make(), 50, 4, 8));
    let mut before = make();
    let mut seen = firsts(&mut before, 33, 1, 8);
    let mut after = make();
    after.restore(&before.state()).expect("same data");
    seen.extend(firsts(&mut after, 167, 1, 8));
    assert_eq!(whole, seen);
    let mut other = Loader::new(data, 9, 3, true).expect("long enough");
    assert!(matches!(other.restore(&before.state()), Err(DataError::OtherData(_))));
}

#[test]
fn too_little_data_is_an_error() {
    assert!(matches!(Loader::new(Arc::new(vec![1; 8]), 8, 0, true), Err(DataError::TooShort { .. })));
}

#[test]
fn shards_come_back_and_broken_ones_are_refused() {
    let dir = std::env::temp_dir().join(format!("corella-shard-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    let path = dir.join("train_000000.bin");
    for vocab_size in [50_257, 128_256] {
        let tokens: Vec<u32> = (0..5000).map(|i| i * 7 % vocab_size as u32).collect();
        write_shard(&path, &tokens, vocab_size).expect("written");
        assert_eq!(read_shard(&path, vocab_size).expect("read"), tokens);
        assert!(read_shard(&path, 100).is_err(), "ids outside the vocabulary");
    }
    let whole = std::fs::read(&path).expect("read");
    for broken in [&whole[..whole.len() - 1], &whole[..1000], &[&[0; 4][..], &whole[4..]].concat()] {
        std::fs::write(&path, broken).expect("written");
        assert!(read_shard(&path, 128_256).is_err());
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}
