//! What training needs before and beside its updates: what is wanted, whether it can be, how it begins, what it prints. The tour and
//! the plan stand on it too; it knows no command.

pub mod build;
mod card_memory;
pub mod hooks;
pub mod lines;
pub mod memory;
mod shape_checks;
pub mod vocabulary_checks;
pub mod wanted;
pub mod workload;
