//! What the decision point and the log tell the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::ledger;
use crate::model::{Decision, PackageName, ReasonCode};
use crate::policy;
use crate::telemetry::{Alarm, Metrics};

pub(super) struct Observed(pub(super) Arc<Metrics>);

impl policy::Observer for Observed {
    fn evaluated(&self, _: &PackageName, took: Duration, _: Decision, not_evaluated: Option<ReasonCode>) {
        self.0.evaluated(took);
        match not_evaluated {
            Some(ReasonCode::EvaluationPanic) => self.0.alarm(Alarm::EvaluationPanic),
            Some(ReasonCode::EvaluationTimeout) => self.0.alarm(Alarm::EvaluationTimeout),
            // Errors and overload are counted with the verdicts.
            Some(_) | None => {}
        }
    }
}

impl ledger::Observer for Observed {
    fn committed(&self, batch: usize, _took: Duration, sync: Duration) {
        self.0.committed(batch, sync);
    }
}
