//! The kernels: their text, their entry points, and the cards that they are compiled for.

/// A file of `kernels/`, compiled as one unit.
#[derive(Debug)]
pub struct Source {
    /// Name of the file.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Its `extern "C" __global__` functions.
    pub entries: &'static [&'static str],
    /// Those of them that may be started while the kernels before them still run (see kernels/common.cuh): they wait by themselves.
    /// That they do is checked on the emulated card, in every launch.
    pub early: &'static [&'static str],
    /// Whether launches add shared memory to what the kernels declare.
    pub dynamic_shared: bool,
}

/// Compute capabilities to which `cargo xtask kernels` compiles every file, as in `sm_80`: data-centre and consumer cards since
/// Ampere, whose `mma.sync` the kernels use; attention_blocks.cu also uses Hopper's `wgmma`. Otherwise what only newer cards have
/// (`tcgen05` on Blackwell) is reached by cuBLASLt, which chooses its own kernels for the card.
pub const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

/// Bytes of shared memory that `classifier_held` declares at most: its launches take all the rest that a block can have.
pub const CLASSIFIER_DECLARES: usize = 128;

/// What files include: names and texts.
pub const HEADERS: [(&str, &str); 7] = [
    ("common.cuh", include_str!("../kernels/common.cuh")),
    ("tensor.cuh", include_str!("../kernels/tensor.cuh")),
    ("warpgroup.cuh", include_str!("../kernels/warpgroup.cuh")),
    ("gelu.cuh", include_str!("../kernels/gelu.cuh")),
    ("softmax.cuh", include_str!("../kernels/softmax.cuh")),
    ("paged.cuh", include_str!("../kernels/paged.cuh")),
    ("weights.cuh", include_str!("../kernels/weights.cuh")),
];

/// Whether a text contains a word, at compile time.
const fn contains(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let mut at = 0;
    while at + word.len() <= text.len() {
        let mut same = 0;
        while same < word.len() && text[at + same] == word[same] {
            same += 1;
        }
        if same == word.len() {
            return true;
        }
        at += 1;
    }
    false
}

macro_rules! sources {
    ($($name:literal [$($entry:literal),* $(,)?] $(early [$($early:literal),* $(,)?])?)*) => {
        /// All files.
        pub const SOURCES: &[Source] = &[$(Source {
            name: $name,
            text: include_str!(concat!("../kernels/", $name)),
            entries: &[$($entry,)* $($($early,)*)?],
            early: &[$($($early),*)?],
            dynamic_shared: contains(include_str!(concat!("../kernels/", $name)), "DYNAMIC_SHARED"),
        }),*];
    };
}

sources! {
    "elementwise.cu" ["cast", "add", "gelu_grad", "bias_gelu", "bias_residual", "swiglu_grad"] early ["gelu", "swiglu"]
    "encoder.cu" ["encoder", "embedding_grad", "position_grad"]
    "norm_packets.cu" ["norm_packets_grad"] early ["norm_packets"]
    "norm.cu" ["norm_grad", "norm_grad_wide"] early ["norm_rows", "norm_rows_wide"]
    "columns.cu" ["column_sums", "gelu_back", "norm_column_sums", "add_chunks"]
    "rope.cu" ["rope"]
    "classifier.cu" ["classifier", "classifier_held"]
    "optimizer.cu" ["square_sums", "total", "adamw"]
    "product.cu" ["product"]
    "probe.cu" ["read_all"]
    "attention.cu" [
        "attention_64", "attention_128", "attention_grad_queries_64", "attention_grad_queries_128", "attention_grad_keys_64",
        "attention_grad_keys_128",
    ]
    "attention_blocks.cu" ["attention_blocks", "attention_blocks_grad_queries", "attention_blocks_grad_keys"]
    "attention_plain.cu" [
        "attention_plain", "attention_delta", "attention_delta_packets", "attention_plain_grad_queries",
        "attention_plain_grad_keys",
    ]
    "paged_write.cu" ["select_rows", "copy_part"] early ["rope_rows", "kv_write_f16", "kv_write_bf16", "kv_write_q8"]
    "paged_decode.cu" [] early [
        "paged_decode_f16_1", "paged_decode_f16_4", "paged_decode_f16_8", "paged_decode_bf16_1", "paged_decode_bf16_4",
        "paged_decode_bf16_8", "paged_decode_q8_1", "paged_decode_q8_4", "paged_decode_q8_8", "paged_combine",
    ]
    "paged_prefill.cu" [
        "paged_prefill_f16_64", "paged_prefill_f16_128", "paged_prefill_bf16_64", "paged_prefill_bf16_128",
    ]
    "draw.cu" ["draw_prepare", "draw_weights", "draw_select"]
    "linear_rows.cu" [] early [
        "round_rows", "linear_f32_1", "linear_f32_8", "linear_f16_1", "linear_f16_8", "linear_bf16_1", "linear_bf16_8",
        "linear_wide_1", "linear_wide_8", "linear_q8_1", "linear_q8_8", "linear_q4k_1", "linear_q4k_8",
    ]
    "linear_few.cu" [
        "few_bf16_8", "few_bf16_16", "few_bf16_32", "few_bf16_64", "few_q8_8", "few_q8_16", "few_q8_32", "few_q8_64",
        "few_q4k_8", "few_q4k_16", "few_q4k_32", "few_q4k_64",
    ]
    "linear_tiles.cu" ["tiles_f32", "tiles_f16", "tiles_bf16", "tiles_q8", "tiles_q4k", "tiles_wide"]
    "lookup.cu" ["lookup_f32", "lookup_f16", "lookup_bf16", "lookup_q8", "lookup_q4k", "lookup_wide"]
}
