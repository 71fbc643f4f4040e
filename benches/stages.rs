//! What each stage of a request costs, alone.

#[path = "stages/append.rs"]
mod append;
#[path = "stages/canonicalize.rs"]
mod canonicalize;
#[path = "stages/evaluate.rs"]
mod evaluate;

criterion::criterion_group!(stages, canonicalize::group, evaluate::group, append::group);
criterion::criterion_main!(stages);
