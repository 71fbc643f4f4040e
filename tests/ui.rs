//! Illegal states do not compile. Each file in tests/ui tries one forbidden step and holds the one error it gets.
//!
//! After a change of the compiler or of a type's shape: `TRYBUILD=overwrite cargo nextest run ui::`, and read the diff.

#[test]
fn no_step_from_request_to_wire_can_be_left_out_forged_or_taken_twice() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

#[test]
fn each_forbidden_step_is_one_error() {
    let directory = crate::support::world::root().join("tests/ui");
    let mut steps = 0;
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|e| e == "rs") {
            let expected =
                std::fs::read_to_string(path.with_extension("stderr")).expect("its error is known");
            let errors = expected.lines().filter(|line| line.starts_with("error")).count();
            assert_eq!(errors, 1, "{}", path.display());
            steps += 1;
        }
    }
    assert!(steps > 20, "only {steps} forbidden steps are tried");
}
