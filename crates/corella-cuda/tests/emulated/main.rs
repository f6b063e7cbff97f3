//! The kernels on an emulated card: every one against the f64 reference, and the emulator against mistakes it must notice.

mod apart;
mod attention;
mod backend;
mod card;
mod emulator;
mod notices;
mod probe;
#[path = "../suite/mod.rs"]
mod suite;
