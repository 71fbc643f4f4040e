//! What each stage of a request costs, alone.

#[path = "stages/canonicalize.rs"]
mod canonicalize;

criterion::criterion_group!(stages, canonicalize::group);
criterion::criterion_main!(stages);
