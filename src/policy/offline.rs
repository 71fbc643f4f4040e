//! A bundle's evaluator without a gateway: no deadline, no queue, no request. For replay.
//!
//! The engine, its set-up and its step bound are those of [`Pdp`](super::Pdp), so that a recorded input gives here
//! what it gave there. What a wall clock decided (time-outs, overload) has no meaning here and cannot come out.

use std::num::NonZeroUsize;

use super::bundle::Bundle;
use super::check::names::World;
use super::convert;
use super::evaluate::{Finding, evaluate};
use super::explain::{Explainer, SetTrace, Values};
use super::fault::BundleError;
use super::pdp::{Active, Settings, no_package};
use super::syntax::Parsed;
use crate::canonical::json::{self, Bounds};
use crate::limits;
use crate::model::{Json, PackageName};

/// A checked bundle and prepared engines that share nothing.
pub struct Offline {
    active: Active,
    steps_max: u32,
}

impl Offline {
    /// `copies` engines, one for each thread. Blocks for as long as compiling takes.
    pub fn new(bundle: Bundle, copies: NonZeroUsize) -> Result<Self, BundleError> {
        let settings = Settings { workers: copies, ..Settings::default() };
        Ok(Self { active: Active::new(bundle, &settings)?, steps_max: settings.steps_max.get() })
    }

    pub fn bundle(&self) -> &Bundle {
        &self.active.bundle
    }

    /// Evaluates on the caller's stack, which holds [`limits::EVALUATION_STACK_BYTES`]. `copy` counts from 0.
    ///
    /// Panics if there are not that many copies.
    pub fn find(&self, copy: usize, package: &PackageName, input: &Json) -> Finding {
        let engine = self.active.engines.get(copy).expect("the caller has no more threads than copies");
        match self.active.bundle.sets(package) {
            Some(sets) => evaluate(engine, sets, input, self.steps_max),
            None => no_package(package),
        }
    }

    /// Why each set of the package holds what it holds, and nothing else: all its rules, in precedence. On the caller's
    /// stack, as [`Self::find`]. Empty if the bundle has no such package.
    pub fn explain(&self, copy: usize, package: &PackageName, input: &Json, values: Values) -> Vec<SetTrace> {
        let engine = self.active.engines.get(copy).expect("the caller has no more threads than copies");
        let Some(sets) = self.active.bundle.sets(package) else { return Vec::new() };
        let sources = self.active.bundle.sources();
        // What was loaded parses.
        let modules: Vec<Parsed> =
            sources.policies.iter().filter_map(|file| Parsed::parse(file).ok()).collect();
        let data = sources.data_document();
        let world = World::new(&modules, &sources.data, &data);
        let input = convert::value_of(input);
        let explainer = Explainer::new(&modules, world, engine, input, values, self.steps_max);
        let each = sets.iter().map(|(set, path)| SetTrace {
            set: set.name(),
            trace: explainer.rule(path.strip_prefix("data.").unwrap_or(path)),
        });
        each.collect()
    }
}

/// Reads a recorded policy input back into the tree it was written from; `Err` says what is wrong with it.
pub fn read_input(bytes: &[u8]) -> Result<Json, String> {
    // A value takes a byte at least, and the bytes are bounded.
    let bounds = Bounds { depth_max: limits::REPLAY_INPUT_DEPTH_MAX, values_max: limits::EVIDENCE_BYTES_MAX };
    json::parse(bytes, bounds).map_err(|malformed| {
        let place = malformed.place.map(|place| format!(" ({place})")).unwrap_or_default();
        format!("{}{place}", malformed.code.title())
    })
}
