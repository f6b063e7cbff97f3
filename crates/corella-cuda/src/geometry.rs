//! How many blocks and threads each shape takes. What a sum depends on (chunks of rows) follows from the shape alone, never
//! from the card.

use crate::driver::Launch;
use crate::kernels::CLASSIFIER_DECLARES;

/// Threads of a block in most kernels.
pub const THREADS: u32 = 256;
/// Numbers of the largest head, as MOST_HS of attention_plain.cu.
pub const MOST_HS: usize = 256;
/// Numbers that a thread takes at once, as PACKET in common.cuh.
const PACKET: usize = 8;
/// Threads of a warp.
const WARP: usize = 32;
/// Most blocks of kernels whose threads go on to further elements: some for each processor of a large card.
const MOST_BLOCKS: usize = 4096;
/// Most blocks along y.
const MOST_Y: usize = 65_535;
/// Rows that a block of column sums adds up at least.
pub const CHUNK_ROWS: usize = 64;
/// Most chunks of them, which one block adds up for eight columns.
const MOST_CHUNKS: usize = 256;
/// Columns of such a block.
const CHUNK_COLUMNS: usize = WARP * PACKET;
/// Numbers whose squares a block adds up.
pub const CHUNK_SQUARES: usize = 1 << 16;
/// Numbers of a parameter that a block updates.
pub const CHUNK_UPDATES: usize = 1 << 13;
/// Edge of the tile of product.cu.
const TILE: usize = 32;

fn launch(x: usize, y: usize, block: u32) -> Launch {
    let x = u32::try_from(x).expect("a grid of fewer than 2^31 blocks");
    Launch { grid: [x, y.min(MOST_Y) as u32, 1], block, shared: 0 }
}

/// A thread for each packet of `len` elements.
pub fn elements(len: usize) -> Launch {
    launch(len.div_ceil(PACKET * THREADS as usize).min(MOST_BLOCKS), 1, THREADS)
}

/// A thread for each packet of a row of `c`, in `n` rows.
pub fn row_packets(n: usize, c: usize) -> Launch {
    let block = if c <= PACKET * 64 { 64 } else { THREADS };
    launch(c.div_ceil(PACKET * block as usize), n, block)
}

/// A warp for each of `n` rows.
fn warp_per_row(n: usize) -> Launch {
    const WARPS: usize = 4;
    launch(n.div_ceil(WARPS), 1, (WARPS * WARP) as u32)
}

/// Longest row that a warp holds in its registers, as HELD packets of a lane in norm.cu.
const WARP_ROW: usize = 4 * WARP * PACKET;

/// A warp, or a block, for each of `n` rows of `c`, by the row's length alone; whether it is a block.
pub fn norm_rows(n: usize, c: usize) -> (Launch, bool) {
    let wide = c > WARP_ROW;
    (if wide { block_per_row(n) } else { warp_per_row(n) }, wide)
}

/// Longest row of whose packets a block has a thread for each.
const PACKETS_ROW: usize = THREADS as usize * PACKET;
/// Threads of a block with one for each packet of rows of `c`; none where a warp takes a row as well, or the row is too long or
/// ends within a packet.
fn packet_threads(c: usize) -> Option<u32> {
    let fits = c > WARP * PACKET && c <= PACKETS_ROW && c.is_multiple_of(PACKET);
    fits.then(|| (c / PACKET).next_multiple_of(WARP) as u32)
}

/// A block for each two of `n` rows of `c` (FORWARD_ROWS of norm_packets.cu), where a thread takes a packet.
pub fn norm_packets(n: usize, c: usize) -> Option<Launch> {
    packet_threads(c).map(|threads| launch(n.div_ceil(2), 1, threads))
}

/// The way back through such a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketsGrad {
    /// A block for each chunk.
    pub launch: Launch,
    /// Rows of a chunk.
    pub chunk: usize,
    /// Chunks.
    pub chunks: usize,
}

/// A block for each chunk of `n` rows of `c`, where a thread takes a packet.
pub fn norm_packets_grad(n: usize, c: usize) -> Option<PacketsGrad> {
    // All blocks at once on the processors of a large card, each of which holds 16 warps of this kernel.
    const PROCESSORS: usize = 128;
    const WARPS: usize = 16;
    const ROWS: usize = 32;
    let threads = packet_threads(c)?;
    let most = PROCESSORS * (WARPS / (threads as usize / WARP));
    let chunk = n.div_ceil(most).next_multiple_of(2).max(ROWS);
    let chunks = n.div_ceil(chunk);
    Some(PacketsGrad { launch: launch(chunks, 1, threads), chunk, chunks })
}

/// A block for each of `n` rows.
pub fn block_per_row(n: usize) -> Launch {
    launch(n, 1, THREADS)
}

/// A block that holds a row of logits in bf16 in shared memory (HOLDERS of classifier.cu), for each of `n` rows; none where the row
/// does not fit what every card has, or leaves threads without work.
pub fn held_rows(n: usize, width: usize) -> Option<Launch> {
    const HOLDERS: usize = 512;
    const MOST: usize = (99 << 10) - CLASSIFIER_DECLARES;
    let fits = width >= HOLDERS * PACKET && 2 * width <= MOST && width.is_multiple_of(PACKET);
    fits.then(|| Launch { shared: 2 * width as u32, ..launch(n, 1, HOLDERS as u32) })
}

/// A thread for each of `c` columns, in each of `n` groups.
pub fn columns(c: usize, n: usize) -> Launch {
    launch(c.div_ceil(THREADS as usize), n, THREADS)
}

/// Sums of `n` rows of `c` columns by chunks: the launch, and the number of chunks.
pub fn column_chunks(n: usize, c: usize) -> (Launch, usize) {
    let chunks = n.div_ceil(chunk_rows(n));
    (launch(c.div_ceil(CHUNK_COLUMNS), chunks, THREADS), chunks)
}

/// The sums of the chunks, of `c` columns, in `arrays` arrays: a block for each 8 (GROUP_COLUMNS of columns.cu).
pub fn chunk_sums(c: usize, arrays: usize) -> Launch {
    launch(c.div_ceil(8), arrays, THREADS)
}

/// Rows of a chunk.
pub fn chunk_rows(n: usize) -> usize {
    CHUNK_ROWS.max(n.div_ceil(MOST_CHUNKS))
}

/// So many blocks.
pub fn blocks(count: usize) -> Launch {
    launch(count, 1, THREADS)
}

/// Tiles of a result of m × n.
pub fn tiles(m: usize, n: usize) -> Launch {
    launch(n.div_ceil(TILE), m.div_ceil(TILE), THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks × what a block takes cover everything, or the kernel's loop goes on by the whole grid.
    #[test]
    fn every_element_has_a_thread() {
        for len in [1, 7, 8, 9, 2047, 2048, 2049, 1 << 20] {
            let l = elements(len);
            assert!(l.grid[0] as usize * PACKET * l.block as usize >= len, "{len}");
            assert!((l.grid[0] as usize - 1) * PACKET * (l.block as usize) < len, "{len}: an idle block");
            assert!(columns(len, 1).grid[0] * THREADS >= len as u32, "{len}");
            assert!(warp_per_row(len).grid[0] * 4 >= len as u32, "{len}");
        }
        assert_eq!(elements(usize::MAX / 2).grid[0] as usize, MOST_BLOCKS);
    }

    #[test]
    fn chunks_of_rows_depend_on_the_shape_and_fit_a_grid() {
        assert_eq!(column_chunks(1, 1).1, 1);
        assert_eq!(column_chunks(64, 768), (Launch { grid: [3, 1, 1], block: 256, shared: 0 }, 1));
        assert_eq!(column_chunks(65, 769).0.grid, [4, 2, 1]);
        let rows = 100_000_000;
        let (launch, chunks) = column_chunks(rows, 8);
        assert!(chunks <= MOST_CHUNKS && launch.grid[1] as usize == chunks && chunks * chunk_rows(rows) >= rows);
    }

    #[test]
    fn rows_of_norms_are_taken_by_their_length() {
        assert_eq!(norm_rows(7, 1024), (warp_per_row(7), false));
        assert_eq!(norm_rows(1, 1025), (block_per_row(1), true));
    }

    #[test]
    fn rows_with_a_thread_for_each_packet() {
        assert_eq!([256, 2056, 770].map(|c| norm_packets(8, c)), [None; 3]);
        assert_eq!(norm_packets(9, 768), Some(Launch { grid: [5, 1, 1], block: 96, shared: 0 }));
        assert_eq!(norm_packets(1, 1600).map(|l| l.block), Some(224));
        let of = |n, c| norm_packets_grad(n, c).map(|g| (g.launch.grid[0], g.chunk, g.chunks));
        assert_eq!(of(65_536, 768), Some((631, 104, 631)));
        assert_eq!(of(33, 1600), Some((2, 32, 2)));
        assert_eq!(of(16_385, 768), Some((513, 32, 513)));
    }

    #[test]
    fn logits_are_held_where_they_fit() {
        assert_eq!(held_rows(7, 50_304), Some(Launch { grid: [7, 1, 1], block: 512, shared: 100_608 }));
        assert_eq!(held_rows(7, 128_256), None);
        assert_eq!(held_rows(7, 576), None);
    }

    #[test]
    fn rows_beyond_the_grid_are_taken_in_turn() {
        assert_eq!(row_packets(1_000_000, 3072).grid, [2, MOST_Y as u32, 1]);
        assert_eq!(tiles(33, 64).grid, [2, 2, 1]);
    }
}
