//! Arbitrary bytes as the config file: an answer, never a panic.
#![no_main]

use std::path::Path;

use interlock::clock::{Clock, WallTime};
use interlock::config::{Config, SecretsAre, Surroundings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let clock = Clock::manual(WallTime::from_unix_ns(1_800_000_000_000_000_000));
    let surroundings =
        Surroundings { clock: &clock, variable: &|_| Some("secret".to_owned()), secrets: SecretsAre::Optional };
    match Config::parse(bytes, Path::new("/nowhere/interlock.yaml"), surroundings) {
        Ok(config) => {
            for warning in config.warnings() {
                let _ = config.show_warning(warning);
            }
        }
        Err(invalid) => {
            assert!(!invalid.problems().is_empty());
            let _ = invalid.to_string();
        }
    }
});
