//! Mistakes that the emulator must notice: a test that passes proves something only because these fail.

use crate::emulator::{Watch, launch, load};

/// Runs a kernel `broken(float* x)` with 64 threads on 8 floats.
fn outcome(body: &str, watch: Watch) -> Option<Result<Vec<f32>, String>> {
    let text = format!("#include \"tensor.cuh\"\nextern \"C\" __global__ void broken(float* x) {{\n{body}\n}}\n");
    let kernels = load(&text, "broken", &["broken"], watch)?;
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
        ("bring_near(x + 1, 16);", "not aligned"),
        ("bring_near(x, 8192);", "outside every array"),
        ("if (threadIdx.x != 5) x[0] = warp_sum(1);", "some lanes never reach"),
        ("DYNAMIC_SHARED(s); copy16_async(s, x, true); copies_end();", "asynchronous copies"),
    ] {
        let Some(outcome) = outcome(body, Watch::Nothing) else { return };
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
        let Some(outcome) = outcome(body, Watch::Nothing) else { return };
        assert!(outcome.expect("runs")[0].is_nan(), "{body}");
    }
}

#[test]
fn a_missing_barrier_shows_as_a_difference_between_orders() {
    let text = "#include \"tensor.cuh\"\nextern \"C\" __global__ void race(float* x) {\n\
        __shared__ float s[64]; s[threadIdx.x] = threadIdx.x; x[threadIdx.x] = s[63 - threadIdx.x];\n}\n";
    let Some(kernels) = load(text, "race", &["race"], Watch::Nothing) else { return };
    let run = |backwards| {
        let x = kernels.f32(&[0.0; 64]);
        launch!(kernels, "race", ([1, 1, 1], 64, 0), backwards, x.at).expect("runs");
        x.read_f32()
    };
    assert_ne!(run(false), run(true));
}

/// Two threads, one place, no barrier: between warps, inside a warp, with copies on their way, after reading, and with atomics.
#[test]
fn races_are_noticed_where_they_are_watched_for() {
    let shared = "__shared__ float s[64]; const int i = threadIdx.x;";
    for (race, fine) in [
        ("s[i] = i; x[i & 7] = s[63 - i];", "s[i] = i; __syncthreads(); x[i & 7] = s[63 - i];"),
        ("s[i] = i; x[i & 7] = warp_sum(s[i ^ 1]);", "s[i] = i; __syncwarp(); x[i & 7] = warp_sum(s[i ^ 1]);"),
        ("s[i] = i; __syncwarp(); x[i & 7] = s[63 - i];", "s[i] = i; __syncwarp(); x[i & 7] = s[i ^ 31];"),
        (
            "s[i] = 1; __syncthreads(); const float y = s[63 - i]; s[i] = y;",
            "s[i] = 1; __syncthreads(); const float y = s[63 - i]; __syncthreads(); s[i] = y;",
        ),
        (
            "DYNAMIC_SHARED(d); if (i == 0) copy16_async(d, x, true); copies_end(); x[i & 7] = ((float*)d)[1]; copies_wait<0>();",
            "DYNAMIC_SHARED(d); if (i == 0) copy16_async(d, x, true); copies_end(); copies_wait<0>(); __syncthreads(); x[i & 7] = ((float*)d)[1];",
        ),
        (
            "__shared__ u32 n; n = 0; atomicAdd(&n, 1u);",
            "__shared__ u32 n; if (i == 0) n = 0; __syncthreads(); atomicAdd(&n, 1u); __syncthreads(); x[i & 7] = n;",
        ),
    ] {
        let Some(found) = outcome(&format!("{shared}{race}"), Watch::Races) else { return };
        let error = found.expect_err(race);
        assert!(error.contains("a race"), "{race}: {error}");
        let found = outcome(&format!("{shared}{fine}"), Watch::Races).expect("the compiler was there");
        assert_eq!(found.err(), None, "{fine}");
    }
}

/// A kernel that waits for those before it must be in the table, wait in all threads, and touch no activations before.
#[test]
fn a_kernel_that_waits_too_late_or_is_not_in_the_table_is_noticed() {
    for (body, message) in [
        ("take_turn(); store(Array{x, 0, 0}, threadIdx.x & 7, 1);", "its threads wait"),
        ("if (threadIdx.x < 32) wait_for_kernels_before();", "some of its threads wait"),
        ("const float y = load(Array{x, 0, 0}, 1); take_turn(); x[0] = y;", "activations are touched before"),
        ("store(Array{x, 0, 0}, 1, 0); take_turn();", "activations are touched before"),
    ] {
        let Some(outcome) = outcome(body, Watch::Nothing) else { return };
        let error = outcome.expect_err(body);
        assert!(error.contains(message), "{body}: {error}");
    }
}
