//! Any bytes as a policy file and as a document: a bundle or a list of faults, never a panic, a hang or a
//! dead process. What loads must keep its revision when it is loaded again.

#![no_main]

use interlock::policy::{Bundle, Sources};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let (rego, document) = bytes.split_at(at);
    let mut files = vec![("p/p.rego".to_string(), rego.to_vec())];
    if let Some(document) = document.get(1..).filter(|document| !document.is_empty()) {
        files.push(("ref/d.json".to_string(), document.to_vec()));
    }
    let Ok(sources) = Sources::from_files(files) else { return };
    if let Ok(bundle) = Bundle::from_sources(sources.clone(), &[]) {
        let again = Bundle::from_sources(sources, &[]).expect("it loaded a moment ago");
        assert_eq!(bundle.revision(), again.revision());
    }
});
