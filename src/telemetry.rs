//! Metrics, and the names of metrics and log fields. Labels are bounded: they hold only names from config and
//! spellings from closed lists, never anything a caller sends.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::model::{ActionName, CredentialFault, Decision, OutcomeStatus, ReasonCode, SurfaceName};

/// Upper bounds in seconds: 50 us to 10 s, about three a decade.
const SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0,
];

/// Everything the gateway counts. One instance, made at start, handed to whoever counts.
pub struct Metrics {
    registry: Registry,
    decisions: IntCounterVec,
    refusals: IntCounterVec,
    unproved: IntCounterVec,
    identity_reloads: IntCounterVec,
    /// Parts of identity whose newest state could not be put in force.
    pub identity_failing: IntGauge,
    outcomes: IntCounterVec,
    alarms: IntCounterVec,
    evaluation: Histogram,
    record: Histogram,
    sync: Histogram,
    batch: Histogram,
    added: HistogramVec,
    upstream: HistogramVec,
    pub in_flight: IntGauge,
    pub connections: IntGauge,
    pub ledger_leaves: IntGauge,
    pub ledger_queue: IntGauge,
    pub ledger_open_permits: IntGauge,
    /// 1 for the state the ledger is in, 0 for the others.
    pub ledger_health: IntGaugeVec,
    pub ledger_archive_lag: IntGauge,
    ledger_archive_failures: IntCounter,
    pub pool: IntGaugeVec,
    pub policy_activated_at: Gauge,
    /// 1 for the revision that judges.
    pub policy_active: IntGaugeVec,
    /// 1 while what policy is read from cannot be used, and an older revision judges.
    pub policy_failing: IntGauge,
    policy_reloads: IntCounterVec,
    pub sink_lag: IntGaugeVec,
    pub sink_failures: IntCounterVec,
    /// When the read that brought the value began, unix seconds; absent before the first. Its age is the time since.
    pub fact_read_at: GaugeVec,
    /// 1 if the value is young enough to be used, else 0.
    pub fact_available: IntGaugeVec,
    pub fact_failures: IntCounterVec,
    admin_requests: IntCounterVec,
    pub holds_open: IntGauge,
    pub outcomes_unknown: IntGauge,
    status_lookups: IntCounterVec,
    status_lookups_waiting: IntGaugeVec,
    pub restrictions: IntGaugeVec,
}

/// Something an operator should be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    EvaluationPanic,
    EvaluationTimeout,
    LedgerPoisoned,
    LedgerFull,
    RequestPanic,
    /// hyper and the guard did not agree on how many requests there are.
    FramingDisagreement,
    /// Something other than permitted bytes asked to leave, and was stopped.
    SealViolated,
    /// The wall clock was set while the gateway runs, or is behind the state.
    ClockStepped,
}

impl Alarm {
    pub const ALL: [Alarm; 8] = [
        Self::EvaluationPanic,
        Self::EvaluationTimeout,
        Self::LedgerPoisoned,
        Self::LedgerFull,
        Self::RequestPanic,
        Self::FramingDisagreement,
        Self::SealViolated,
        Self::ClockStepped,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EvaluationPanic => "evaluation_panic",
            Self::EvaluationTimeout => "evaluation_timeout",
            Self::LedgerPoisoned => "ledger_poisoned",
            Self::LedgerFull => "ledger_full",
            Self::RequestPanic => "request_panic",
            Self::FramingDisagreement => "framing_disagreement",
            Self::SealViolated => "seal_violated",
            Self::ClockStepped => "clock_stepped",
        }
    }
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(format!("interlock_{name}"), help);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let c = IntCounterVec::new(opts(name, help), labels)?;
            registry.register(Box::new(c.clone()))?;
            Ok::<_, prometheus::Error>(c)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let g = IntGaugeVec::new(opts(name, help), labels)?;
            registry.register(Box::new(g.clone()))?;
            Ok::<_, prometheus::Error>(g)
        };
        let gauge = |name: &str, help: &str| {
            let g = IntGauge::with_opts(opts(name, help))?;
            registry.register(Box::new(g.clone()))?;
            Ok::<_, prometheus::Error>(g)
        };
        let histogram_opts =
            |name: &str, help: &str| HistogramOpts::from(opts(name, help)).buckets(SECONDS.into());
        let histogram = |name: &str, help: &str| {
            let h = Histogram::with_opts(histogram_opts(name, help))?;
            registry.register(Box::new(h.clone()))?;
            Ok::<_, prometheus::Error>(h)
        };
        let histograms = |name: &str, help: &str| {
            let h = HistogramVec::new(histogram_opts(name, help), &["surface"])?;
            registry.register(Box::new(h.clone()))?;
            Ok::<_, prometheus::Error>(h)
        };
        let activated = Gauge::with_opts(opts(
            "policy_activated_timestamp_seconds",
            "When the active policy bundle was activated, unix seconds.",
        ))?;
        registry.register(Box::new(activated.clone()))?;
        let metrics = Self {
            decisions: counters(
                "decisions_total",
                "Verdicts recorded.",
                &["surface", "action", "decision", "reason_class"],
            )?,
            refusals: counters(
                "refusals_total",
                "Requests refused before or without a verdict.",
                &["surface", "reason_class", "reason"],
            )?,
            unproved: counters(
                "unproved_total",
                "Credentials and handshakes that proved nobody.",
                &["surface", "fault"],
            )?,
            identity_reloads: counters(
                "identity_reloads_total",
                "Certificates, revocation lists and keys that changed while running.",
                &["part", "result"],
            )?,
            identity_failing: gauge(
                "identity_failing_parts",
                "Parts of identity of which an older state is in force, because the newest cannot be used.",
            )?,
            outcomes: counters(
                "outcomes_total",
                "What became of permitted requests.",
                &["surface", "outcome"],
            )?,
            alarms: counters("alarms_total", "Events an operator should be woken for.", &["alarm"])?,
            evaluation: histogram("evaluation_seconds", "Time of one policy evaluation, queueing included.")?,
            record: histogram("record_seconds", "Time until a decision was durable and signed.")?,
            sync: histogram("ledger_sync_seconds", "fdatasync of one group commit.")?,
            batch: {
                let buckets = prometheus::exponential_buckets(1.0, 2.0, 13)?;
                let opts = HistogramOpts::from(opts("ledger_batch_leaves", "Leaves of one group commit."));
                let h = Histogram::with_opts(opts.buckets(buckets))?;
                registry.register(Box::new(h.clone()))?;
                h
            },
            added: histograms(
                "added_latency_seconds",
                "From the whole request received to its first byte forwarded.",
            )?,
            upstream: histograms(
                "upstream_seconds",
                "From the first byte forwarded to the head of the answer.",
            )?,
            in_flight: gauge("requests_in_flight", "Requests being worked on.")?,
            connections: gauge("connections", "Client connections open.")?,
            ledger_leaves: gauge("ledger_leaves", "Leaves in the log.")?,
            ledger_queue: gauge("ledger_queue_leaves", "Leaves waiting for the next commit.")?,
            ledger_open_permits: gauge("ledger_open_permits", "PERMITs without an outcome yet.")?,
            ledger_health: gauges("ledger_health", "1 for the state the ledger is in.", &["state"])?,
            ledger_archive_lag: gauge(
                "ledger_archive_lag_leaves",
                "Durable leaves that cannot be read yet.",
            )?,
            ledger_archive_failures: {
                let name = "ledger_archive_failures_total";
                let c = IntCounter::with_opts(opts(name, "How often the archive stopped at an error."))?;
                registry.register(Box::new(c.clone()))?;
                c
            },
            pool: gauges("upstream_connections", "Connections to upstreams.", &["surface", "state"])?,
            policy_activated_at: activated,
            policy_active: gauges("policy_active", "1 for the revision that judges.", &["revision"])?,
            policy_failing: gauge(
                "policy_failing",
                "1 while the newest policy cannot be used, and the last good one judges.",
            )?,
            policy_reloads: counters(
                "policy_reloads_total",
                "Policy bundles that were found while running.",
                &["result"],
            )?,
            sink_lag: gauges("sink_lag_leaves", "Leaves that a sink does not have yet.", &["sink"])?,
            admin_requests: counters(
                "admin_requests_total",
                "Requests of operators, and of those who proved to be none.",
                &["role", "result"],
            )?,
            holds_open: gauge("holds_open", "Requests that are held for people.")?,
            outcomes_unknown: gauge("outcomes_unknown", "Indeterminate outcomes that nobody has resolved.")?,
            status_lookups: counters(
                "status_lookups_total",
                "Questions to upstreams about indeterminate outcomes, by what came of them.",
                &["surface", "result"],
            )?,
            status_lookups_waiting: gauges(
                "status_lookups_waiting",
                "Indeterminate outcomes that the surface's upstream is asked about.",
                &["surface"],
            )?,
            restrictions: gauges("restrictions", "Freezes and quarantines in force.", &["kind"])?,
            sink_failures: counters("sink_failures_total", "Deliveries to a sink that failed.", &["sink"])?,
            fact_read_at: {
                let help = "When a fact's value was read, unix seconds.";
                let opts = opts("fact_read_timestamp_seconds", help);
                let g = GaugeVec::new(opts, &["surface", "fact"])?;
                registry.register(Box::new(g.clone()))?;
                g
            },
            fact_available: gauges("fact_available", "1 if a fact can be used.", &["surface", "fact"])?,
            fact_failures: counters(
                "fact_failures_total",
                "Reads of a fact's source that failed.",
                &["surface", "fact"],
            )?,
            registry,
        };
        // Alarms exist from the start, so that `increase()` sees the first one.
        for alarm in Alarm::ALL {
            metrics.alarms.with_label_values(&[alarm.as_str()]).inc_by(0);
        }
        for result in ["in_force", "failed"] {
            metrics.policy_reloads.with_label_values(&[result]).inc_by(0);
        }
        for role in ["none", "viewer", "approver", "operator", "administrator"] {
            metrics.admin_requests.with_label_values(&[role, "denied"]).inc_by(0);
        }
        for kind in ["freeze", "quarantine"] {
            metrics.restrictions.with_label_values(&[kind]).set(0);
        }
        Ok(metrics)
    }

    /// Prometheus text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }

    pub fn decided(
        &self,
        surface: &SurfaceName,
        action: &ActionName,
        decision: Decision,
        code: Option<ReasonCode>,
    ) {
        let class = code.map_or("none", |c| c.class().as_str());
        self.decisions
            .with_label_values(&[surface.as_str(), action.as_str(), decision.as_str(), class])
            .inc();
    }

    /// `surface` is absent while it is not known which one was meant.
    pub fn refused(&self, surface: Option<&SurfaceName>, code: ReasonCode) {
        let surface = surface.map_or("", SurfaceName::as_str);
        self.refusals.with_label_values(&[surface, code.class().as_str(), code.as_str()]).inc();
    }

    /// `surface` is absent for a handshake.
    pub fn unproved(&self, surface: Option<&SurfaceName>, fault: CredentialFault) {
        let surface = surface.map_or("", SurfaceName::as_str);
        self.unproved.with_label_values(&[surface, fault.as_str()]).inc();
    }

    /// `part` from a closed list.
    pub fn identity_reloaded(&self, part: &'static str, is_in_force: bool) {
        let result = if is_in_force { "in_force" } else { "failed" };
        self.identity_reloads.with_label_values(&[part, result]).inc();
    }

    /// The label is the digest of a bundle that an operator put there; only the active one has a sample.
    pub fn policy_activated(&self, revision: &str, unix_seconds: f64) {
        self.policy_active.reset();
        self.policy_active.with_label_values(&[revision]).set(1);
        self.policy_activated_at.set(unix_seconds);
    }

    pub fn policy_reloaded(&self, is_in_force: bool) {
        self.policy_failing.set(i64::from(!is_in_force));
        let result = if is_in_force { "in_force" } else { "failed" };
        self.policy_reloads.with_label_values(&[result]).inc();
    }

    pub fn settled(&self, surface: &SurfaceName, status: OutcomeStatus) {
        self.outcomes.with_label_values(&[surface.as_str(), status.as_str()]).inc();
    }

    pub fn alarm(&self, alarm: Alarm) {
        self.alarms.with_label_values(&[alarm.as_str()]).inc();
    }

    /// `role` and `result` are from closed lists.
    pub fn operated(&self, role: &'static str, result: &'static str) {
        self.admin_requests.with_label_values(&[role, result]).inc();
    }

    /// `result` from a closed list.
    pub fn status_looked_up(&self, surface: &SurfaceName, result: &'static str, count: u64) {
        self.status_lookups.with_label_values(&[surface.as_str(), result]).inc_by(count);
    }

    pub fn status_lookups_waiting(&self, surface: &SurfaceName, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.status_lookups_waiting.with_label_values(&[surface.as_str()]).set(count);
    }

    pub fn evaluated(&self, took: Duration) {
        self.evaluation.observe(took.as_secs_f64());
    }

    pub fn recorded(&self, took: Duration) {
        self.record.observe(took.as_secs_f64());
    }

    /// One group commit and the time it spent in fdatasync.
    pub fn committed(&self, batch: usize, sync: Duration) {
        self.batch.observe(batch as f64);
        self.sync.observe(sync.as_secs_f64());
    }

    /// The archive's failures since the start, as the ledger counts them.
    pub fn archive_failed(&self, since_start: u64) {
        self.ledger_archive_failures.inc_by(since_start.saturating_sub(self.ledger_archive_failures.get()));
    }

    pub fn added(&self, surface: &SurfaceName, took: Duration) {
        self.added.with_label_values(&[surface.as_str()]).observe(took.as_secs_f64());
    }

    pub fn answered(&self, surface: &SurfaceName, took: Duration) {
        self.upstream.with_label_values(&[surface.as_str()]).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new().expect("names and labels are valid");
        let surface = "payments".parse().expect("name");
        let action = "charge.create".parse().expect("name");
        metrics.decided(&surface, &action, Decision::Deny, Some(ReasonCode::PolicyDenied));
        metrics.refused(None, ReasonCode::CredentialInvalid);
        metrics.evaluated(Duration::from_micros(70));
        let text = String::from_utf8(metrics.render().expect("encodes")).expect("text");
        for line in [
            "interlock_decisions_total{action=\"charge.create\",decision=\"DENY\",reason_class=\"verdict\",surface=\"payments\"} 1",
            "interlock_refusals_total{reason=\"credential_invalid\",reason_class=\"unauthenticated\",surface=\"\"} 1",
            "interlock_evaluation_seconds_bucket{le=\"0.0001\"} 1",
            "interlock_alarms_total{alarm=\"ledger_poisoned\"} 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
