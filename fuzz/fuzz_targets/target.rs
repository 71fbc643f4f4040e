//! Any target, Host and template: refused, or in a form that is a fixed point.
#![no_main]

use http::{HeaderMap, HeaderValue, Method};
use interlock::canonical::target::CanonicalTarget;
use interlock::canonical::template::PathTemplate;
use interlock::canonical::{ReceivedHead, Version};

libfuzzer_sys::fuzz_target!(|input: (String, Vec<u8>, String)| {
    let (target, host, template) = input;
    let Ok(host) = HeaderValue::from_bytes(&host) else { return };
    let parse = |target: &str| {
        CanonicalTarget::parse(&ReceivedHead {
            version: Version::Http11,
            method: Method::GET,
            target: target.into(),
            authority: None,
            headers: HeaderMap::from_iter([(http::header::HOST, host.clone())]),
        })
    };
    let Ok(once) = parse(&target) else { return };
    assert!(once.path().starts_with('/') && once.path().bytes().all(|b| b.is_ascii_graphic()));
    assert!(once.path().split('/').all(|segment| segment != "." && segment != ".."));
    assert_eq!(parse(once.path()).expect("its own form").path(), once.path());
    if let Ok(template) = PathTemplate::parse(&template) {
        let _ = template.matches(&once);
    }
});
