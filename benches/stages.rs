//! What each stage of a request costs, alone.

#[path = "stages/append.rs"]
mod append;

criterion::criterion_group!(stages, append::group);
criterion::criterion_main!(stages);
