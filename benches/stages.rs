//! What each stage costs.

#[path = "stages/evaluate.rs"]
mod evaluate;

use criterion::{criterion_group, criterion_main};

criterion_group!(stages, evaluate::group);
criterion_main!(stages);
