//! What each stage of a request costs, alone, and the whole path.

#[path = "stages/canonicalize.rs"]
mod canonicalize;
#[path = "stages/evaluate.rs"]
mod evaluate;
#[path = "stages/path.rs"]
mod path;
#[path = "stages/verify.rs"]
mod verify;

criterion::criterion_group!(stages, canonicalize::group, evaluate::group, path::group, verify::group);
criterion::criterion_main!(stages);
