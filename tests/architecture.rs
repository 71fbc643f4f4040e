//! The layer rule and the owners of capabilities, checked on the source text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below `src`, by its path relative to it.
fn sources() -> BTreeMap<String, String> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&src(), &mut found);
    let relative = |path: &Path| path.strip_prefix(src()).expect("below src").to_string_lossy().into_owned();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).expect("UTF-8"))).collect()
}

/// Modules in the order lib.rs declares them.
fn layers() -> Vec<String> {
    fs::read_to_string(src().join("lib.rs"))
        .expect("lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

/// The code of a file without its comments and its `mod tests`.
fn code(text: &str) -> String {
    let product = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_module_imports_only_modules_declared_above_it() {
    let layers = layers();
    assert!(layers.len() > 10, "lib.rs declares the layers");
    let rank = |name: &str| layers.iter().position(|layer| layer == name);
    let mut imports = 0;
    for (path, text) in sources() {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = rank(module) else { continue };
        let code = code(&text);
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
                None => vec![rest],
            };
            for name in names {
                let name =
                    name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let Some(theirs) = rank(name) else { continue };
                imports += 1;
                assert!(
                    theirs <= own,
                    "src/{path} imports `{name}`, which stands below `{module}` in lib.rs"
                );
            }
        }
    }
    assert!(imports > 100, "only {imports} imports found: the test does not see them");
}

/// The modules of this crate that the code names, by `crate::` or `interlock::`.
fn imported(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let rest = &code[at + root.len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        let word = |name: &str| {
            name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned)
        };
        found.extend(names.into_iter().filter_map(word));
    }
    found
}

#[test]
fn verification_stands_on_the_model_and_the_tree_alone() {
    let allowed = ["clock", "limits", "merkle", "model", "verify"];
    let mut seen = 0;
    for (path, text) in sources() {
        let is_verifier = ["verify", "merkle"]
            .iter()
            .any(|m| path == format!("{m}.rs") || path.starts_with(&format!("{m}/")));
        if is_verifier {
            for name in imported(&code(&text), "crate::") {
                seen += 1;
                assert!(allowed.contains(&&*name), "src/{path} imports `{name}`");
            }
        }
    }
    assert!(seen > 50, "only {seen} imports found: the test does not see them");
    no_other_crate_is_used_there(&sources());
    // The program that only verifies: the same front end, and nothing of the gateway.
    let sources = sources();
    let (front, program) = (code(&sources["cli/verify.rs"]), code(&sources["bin/interlock-verify.rs"]));
    assert!(program.contains("#[path = \"../cli/verify.rs\"]"), "it shares the front end");
    for code in [&front, &program] {
        for name in imported(code, "interlock::") {
            assert!(allowed.contains(&&*name), "the front end of verification imports `{name}`");
        }
        let uses = code.lines().filter_map(|line| line.trim_start().strip_prefix("use "));
        for root in uses.filter_map(|path| path.split("::").next()) {
            assert!(["std", "anyhow", "clap", "serde", "interlock"].contains(&root), "it uses `{root}`");
        }
        assert!(!code.contains("super::") && !code.contains("crate::"), "it stands alone");
    }
}

/// What verification stands on besides the standard library is known by name: encodings, hashes and signatures.
fn no_other_crate_is_used_there(sources: &BTreeMap<String, String>) {
    const ALLOWED: [&str; 8] = ["base64", "ring", "serde", "serde_json", "std", "thiserror", "zmij", "zstd"];
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).expect("Cargo.lock");
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let crates: BTreeSet<String> =
        names.map(|name| name.replace('-', "_")).chain(["std".to_owned()]).collect();
    let mut used = BTreeSet::new();
    for (path, text) in sources {
        let is_verifier = ["verify", "merkle"]
            .iter()
            .any(|m| *path == format!("{m}.rs") || path.starts_with(&format!("{m}/")));
        if !is_verifier {
            continue;
        }
        let code = code(text);
        let product = code.split("#[cfg(test)]").next().unwrap_or_default();
        let is_module = |name: &str| {
            ["verify", "merkle"].iter().any(|dir| sources.contains_key(&format!("{dir}/{name}.rs")))
        };
        for (at, _) in product.match_indices("::") {
            let before = &product[..at];
            let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |end| end + 1);
            let is_root = !before[..start].ends_with("::");
            let name = &before[start..];
            if is_root && crates.contains(name) && !is_module(name) {
                assert!(ALLOWED.contains(&name), "src/{path} uses the crate `{name}`");
                used.insert(name.to_owned());
            }
        }
    }
    assert_eq!(used.len(), ALLOWED.len(), "not all of {ALLOWED:?} are seen: {used:?}");
}

/// Each capability, how it is spelled in code, and the only places that may spell it.
#[test]
fn a_capability_is_used_by_its_owner_alone() {
    let rules: [(&str, &[&str], &[&str]); 11] = [
        ("reading time", &["Instant::now", "SystemTime::now"], &["clock.rs"]),
        ("connecting", &["TcpStream::connect"], &["upstream/lease.rs"]),
        ("listening", &["TcpListener::bind"], &["gateway.rs", "gateway/"]),
        ("the HTTP client", &["hyper::client"], &["upstream/"]),
        ("the Rego engine", &["regorus::"], &["policy/", "policy.rs"]),
        ("the bytes of a request", &[".wire()"], &["upstream/permit.rs"]),
        ("arming a seal", &[".arm("], &["upstream/exchange.rs"]),
        ("the secret of a credential", &[".expose()"], &["upstream/permit.rs", "upstream/client.rs"]),
        ("taking recorded evidence apart", &[".into_parts()"], &["upstream/", "ledger/"]),
        ("reading the environment", &["env::var"], &["config/", "config.rs", "gateway/simulation/tests.rs"]),
        ("YAML", &["granit_parser"], &["config/"]),
    ];
    let sources = sources();
    for (what, spellings, owners) in rules {
        let mut used_by_owner = false;
        for (path, text) in &sources {
            if path.starts_with("cli/") || path == "main.rs" {
                continue;
            }
            let code = code(text);
            if !spellings.iter().any(|spelling| code.contains(spelling)) {
                continue;
            }
            let is_owner =
                owners.iter().any(|owner| path == owner || (owner.ends_with('/') && path.starts_with(owner)));
            assert!(is_owner, "{what} belongs to {owners:?}, but src/{path} does it");
            used_by_owner = true;
        }
        assert!(used_by_owner, "{what}: no owner found, so this test sees nothing");
    }
}

#[test]
fn capabilities_are_neither_cloned_nor_defaulted_nor_read_from_outside() {
    let capabilities = [
        "Permit",
        "Refusal",
        "Evaluated",
        "Recorded",
        "OpenPermit",
        "PermittedRequest",
        "InFlight",
        "CanonicalRequest",
    ];
    let sources = sources();
    for name in capabilities {
        let mut declared = 0;
        for (path, text) in &sources {
            let lines: Vec<_> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                let rest = line.trim().strip_prefix("pub struct ").unwrap_or_default();
                if rest.split(|c: char| !c.is_alphanumeric()).next() != Some(name) {
                    continue;
                }
                declared += 1;
                let derives: Vec<_> = lines[..at]
                    .iter()
                    .rev()
                    .take_while(|l| l.trim_start().starts_with("#[") || l.trim_start().starts_with("///"))
                    .filter(|l| l.contains("derive"))
                    .collect();
                for derive in derives {
                    for banned in ["Clone", "Default", "Deserialize"] {
                        assert!(!derive.contains(banned), "src/{path}: {name} derives {banned}");
                    }
                }
            }
        }
        assert_eq!(declared, 1, "{name} is declared once");
    }
}

#[test]
fn the_airlock_stays_small() {
    let text = fs::read_to_string(src().join("upstream/permit.rs")).expect("permit.rs");
    assert!(text.lines().count() < 150, "upstream/permit.rs has {} lines", text.lines().count());
}

#[test]
fn no_unwrap_outside_tests() {
    for (path, text) in sources() {
        let code = code(&text);
        assert!(!code.contains(".unwrap()"), "src/{path} unwraps");
        let unfinished = ["todo", "unimplemented"].map(|name| format!("{name}!("));
        assert!(!unfinished.iter().any(|call| code.contains(call)), "src/{path} is unfinished");
    }
}

#[test]
fn no_second_tls_or_http_client_in_the_graph() {
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).expect("Cargo.lock");
    for banned in
        ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls", "reqwest", "rsa", "serde_yaml"]
    {
        assert!(!lock.contains(&format!("name = \"{banned}\"\n")), "{banned} is in Cargo.lock");
    }
}
