//! Whole runs of a tiny model, and what they leave behind.

mod choices;
mod common;
mod data;
mod plans;
mod resume;
mod run_files_page;
mod spikes;
mod updates;
mod watching;
