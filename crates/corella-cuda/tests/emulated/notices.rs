//! Mistakes that the emulator must notice: a test that passes proves something only because these fail.

use crate::emulator::{launch, load};

/// Runs a kernel `broken(float* x)` with 64 threads on 8 floats.
fn outcome(body: &str) -> Option<Result<Vec<f32>, String>> {
    let text = format!("#include \"tensor.cuh\"\nextern \"C\" __global__ void broken(float* x) {{\n{body}\n}}\n");
    let kernels = load(&text, "broken", &["broken"])?;
    let x = kernels.f32(&[1.0; 8]);
    let shape = ([1, 1, 1], 64, 256);
    Some(launch!(kernels, "broken", shape, false, x.at).map(|()| x.read_f32()))
}

#[test]
fn mistakes_are_noticed() {
    for (body, message) in [
        ("x[8] = 1;", "outside every array"),
        ("x[0] = x[-1024];", "outside every array"),
        ("DYNAMIC_SHARED(s); x[0] = ((float*)s)[64 + threadIdx.x];", "outside every array"),
        ("__shared__ float s[4]; s[threadIdx.x & 7] = 1; x[0] = s[0];", "an index outside its array"),
        ("*(float4*)(x + 1) = make_float4(1, 2, 3, 4);", "misaligned"),
        ("if (threadIdx.x < 32) __syncthreads();", "a barrier that some threads never reach"),
        ("if (threadIdx.x < 32) {\n__syncthreads();\n} else {\n__syncthreads();\n}", "different barriers"),
        ("if (threadIdx.x != 5) x[0] = warp_sum(1);", "some lanes never reach"),
        ("DYNAMIC_SHARED(s); copy16_async(s, x, true); copies_end();", "asynchronous copies"),
    ] {
        let Some(outcome) = outcome(body) else { return };
        let error = outcome.expect_err(body);
        assert!(error.contains(message) && error.contains("broken, block (0,0,0)"), "{body}: {error}");
    }
}

#[test]
fn what_was_not_written_or_waited_for_is_not_a_number() {
    for body in [
        "DYNAMIC_SHARED(s); if (threadIdx.x == 0) x[0] = ((float*)s)[3];",
        "DYNAMIC_SHARED(s); copy16_async(s, x, true); copies_end(); if (threadIdx.x == 0) x[0] = ((float*)s)[3]; copies_wait<0>();",
    ] {
        let Some(outcome) = outcome(body) else { return };
        assert!(outcome.expect("runs")[0].is_nan(), "{body}");
    }
}

#[test]
fn a_missing_barrier_shows_as_a_difference_between_orders() {
    let text = "#include \"tensor.cuh\"\nextern \"C\" __global__ void race(float* x) {\n\
        __shared__ float s[64]; s[threadIdx.x] = threadIdx.x; x[threadIdx.x] = s[63 - threadIdx.x];\n}\n";
    let Some(kernels) = load(text, "race", &["race"]) else { return };
    let run = |backwards| {
        let x = kernels.f32(&[0.0; 64]);
        launch!(kernels, "race", ([1, 1, 1], 64, 0), backwards, x.at).expect("runs");
        x.read_f32()
    };
    assert_ne!(run(false), run(true));
}
