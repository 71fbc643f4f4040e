//! The shipped policies and the demo's config, inside the program.
//!
//! `policies_are_all_embedded` compares the list with the folder.

/// With placeholders for what is only known when the demo runs.
pub const CONFIG: &str = include_str!("interlock.yaml");

macro_rules! policies {
    ($($name:literal,)*) => {
        /// Name below `policies/`, and content.
        pub const POLICIES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../policies/", $name))),)*];
    };
}

policies! {
    "configuration/configuration.rego",
    "configuration/configuration_test.rego",
    "exports/exports.rego",
    "exports/exports_test.rego",
    "payments/payments.rego",
    "payments/payments_test.rego",
    "ref/counterparties.json",
    "ref/datasets.json",
    "ref/hours.json",
    "ref/limits.json",
    "ref/protected.json",
    "ref/windows.json",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn policies_are_all_embedded() {
        fn below(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
            for entry in fs::read_dir(dir).expect("readable") {
                let path = entry.expect("readable").path();
                let name = path.strip_prefix(root).expect("below").to_str().expect("UTF-8").to_owned();
                if path.is_dir() {
                    below(&path, root, found);
                } else if !name.ends_with(".md") && !name.ends_with(".schema.json") {
                    found.insert(name);
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let mut found = BTreeSet::new();
        below(&root, &root, &mut found);
        let embedded: BTreeSet<_> = POLICIES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(embedded, found, "the list in this file is the folder");
    }
}
