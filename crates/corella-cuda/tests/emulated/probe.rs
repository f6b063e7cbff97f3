//! The kernel that reads as fast as it can reads everything.

use crate::emulator::{kernels, launch};

/// What the threads have read, together, is every word: once for each pass, turned by the number of the pass.
#[test]
fn every_word_is_read_in_every_pass() {
    let Some(probe) = kernels("probe.cu") else { return };
    for (packets, blocks, passes) in [(1, 1, 1), (300, 1, 1), (5000, 2, 3), (2 * 256 * 8, 2, 2), (4097, 1, 17)] {
        let words: Vec<u32> = (0..4 * packets as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let x = probe.memory(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
        let out = probe.memory(&vec![0xff; 4 * 256 * blocks as usize]);
        let (n, shape) = (packets as u64, ([blocks, 1, 1], 256, 0));
        launch!(probe, "read_all", shape, false, out.at, x.at, n, passes).expect("runs");
        let found = out.read().chunks_exact(4).fold(0, |all, b| all ^ u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let all = words.iter().fold(0, |all, word| all ^ word);
        let expected = (0..passes).fold(0, |sum, pass: u32| sum ^ all.rotate_left(pass & 15));
        assert_eq!(found, expected, "{packets} packets, {blocks} blocks, {passes} passes");
    }
}
