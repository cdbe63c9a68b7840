//! Every metric of the service, on a registry of its own (CONTRACT: "Metrics").
//! Labels are closed sets: each counter and histogram stands at 0 from the start; a timestamp is
//! absent until it is known. No file name ever becomes a label. Nothing here decides or logs.

mod make;

use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use self::make::{counters, gauge, gauges, histograms, info, keep, kept, timestamps};

use crate::core::names::{
    AttemptResult, Beat, Cause, FileOutcome, Phase, ReleaseReason, RestartReason,
};

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A small file on a local network to a large one over a radio link.
const UPLOAD_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0, 3600.0,
];

/// Dense around the defaults: 2 s beats, 12 s for a dead path, 30 s and 60 s timers.
const HEALING_BUCKETS: &[f64] = &[
    1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 40.0, 60.0, 75.0, 120.0, 300.0,
];

/// The service's metrics. Cloning is cheap, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    set: Arc<Set>,
}

#[derive(Debug)]
struct Set {
    registry: Registry,
    files: IntCounterVec,
    upload_attempts: IntCounterVec,
    upload_bytes: IntCounterVec,
    upload_duration: HistogramVec,
    beats: IntCounterVec,
    uploader_resets: IntCounterVec,
    detection: HistogramVec,
    recovery: HistogramVec,
    quarantine_pairs: IntGauge,
    quarantine_capacity: IntGauge,
    quarantine_send_bytes: IntGauge,
    quarantine_releases: IntCounterVec,
    ready: IntGauge,
    stranded_workers: IntGauge,
    timeouts: IntCounterVec,
    refused_names: IntCounterVec,
    spool_files: IntGaugeVec,
    spool_bytes: IntGaugeVec,
    dead_letters: IntGaugeVec,
    oldest_pending: GaugeVec,
    last_success: GaugeVec,
    watchdog_restarts: IntCounterVec,
    log_dropped: IntCounter,
}

impl Metrics {
    /// All metrics, with every series of these routes at 0.
    pub fn new(routes: &[&str], version: &str, revision: &str) -> Self {
        let registry = Registry::new();
        let set = Set::register(registry);
        info(&set.registry, version, revision);
        keep(&set.registry, ProcessCollector::for_self());
        let metrics = Self { set: Arc::new(set) };
        for &cause in Cause::ALL {
            metrics.detection(cause);
            metrics.recovery(cause);
        }
        for &reason in ReleaseReason::ALL {
            metrics.quarantine_releases(reason);
        }
        for &reason in RestartReason::ALL {
            metrics.watchdog_restarts(reason);
        }
        for route in routes {
            metrics.add_route(route);
        }
        metrics
    }

    /// Makes every series of one route stand at 0 (series that exist keep their value).
    pub fn add_route(&self, route: &str) {
        for &outcome in FileOutcome::ALL {
            self.files(route, outcome);
        }
        for &result in AttemptResult::ALL {
            self.upload_attempts(route, result);
        }
        for &result in Beat::ALL {
            self.beats(route, result);
        }
        for &cause in Cause::ALL {
            self.uploader_resets(route, cause);
        }
        for &phase in Phase::ALL {
            self.timeouts(route, phase);
        }
        self.upload_bytes(route);
        self.refused_names(route);
        self.upload_duration(route);
        self.spool_files(route);
        self.spool_bytes(route);
        self.dead_letters(route);
    }

    /// A route is not there any more: what tells of the present goes, counters stay.
    pub fn remove_route(&self, route: &str) {
        // An error means that the series is absent already.
        let _ = self.set.spool_files.remove_label_values(&[route]);
        let _ = self.set.spool_bytes.remove_label_values(&[route]);
        let _ = self.set.oldest_pending.remove_label_values(&[route]);
        let _ = self.set.last_success.remove_label_values(&[route]);
        let _ = self.set.dead_letters.remove_label_values(&[route]);
    }

    /// `ftpulse_files_total`.
    pub fn files(&self, route: &str, outcome: FileOutcome) -> IntCounter {
        self.set.files.with_label_values(&[route, outcome.as_str()])
    }

    /// `ftpulse_upload_attempts_total`.
    pub fn upload_attempts(&self, route: &str, result: AttemptResult) -> IntCounter {
        self.set
            .upload_attempts
            .with_label_values(&[route, result.as_str()])
    }

    /// `ftpulse_upload_bytes_total`.
    pub fn upload_bytes(&self, route: &str) -> IntCounter {
        self.set.upload_bytes.with_label_values(&[route])
    }

    /// `ftpulse_upload_duration_seconds`.
    pub fn upload_duration(&self, route: &str) -> Histogram {
        self.set.upload_duration.with_label_values(&[route])
    }

    /// `ftpulse_beats_total`.
    pub fn beats(&self, route: &str, result: Beat) -> IntCounter {
        self.set.beats.with_label_values(&[route, result.as_str()])
    }

    /// `ftpulse_uploader_resets_total`.
    pub fn uploader_resets(&self, route: &str, cause: Cause) -> IntCounter {
        self.set
            .uploader_resets
            .with_label_values(&[route, cause.as_str()])
    }

    /// `ftpulse_detection_seconds`: last sign of life to verdict.
    pub fn detection(&self, cause: Cause) -> Histogram {
        self.set.detection.with_label_values(&[cause.as_str()])
    }

    /// `ftpulse_recovery_seconds`: verdict to the file's delivery.
    pub fn recovery(&self, cause: Cause) -> Histogram {
        self.set.recovery.with_label_values(&[cause.as_str()])
    }

    /// `ftpulse_quarantine_pairs`.
    pub fn quarantine_pairs(&self) -> &IntGauge {
        &self.set.quarantine_pairs
    }

    /// `ftpulse_quarantine_capacity`.
    pub fn quarantine_capacity(&self) -> &IntGauge {
        &self.set.quarantine_capacity
    }

    /// `ftpulse_quarantine_send_bytes`.
    pub fn quarantine_send_bytes(&self) -> &IntGauge {
        &self.set.quarantine_send_bytes
    }

    /// `ftpulse_quarantine_releases_total`.
    pub fn quarantine_releases(&self, reason: ReleaseReason) -> IntCounter {
        self.set
            .quarantine_releases
            .with_label_values(&[reason.as_str()])
    }

    /// `ftpulse_ready`.
    pub fn ready(&self) -> &IntGauge {
        &self.set.ready
    }

    /// `ftpulse_stranded_workers`.
    pub fn stranded_workers(&self) -> &IntGauge {
        &self.set.stranded_workers
    }

    /// `ftpulse_timeouts_total`.
    pub fn timeouts(&self, route: &str, phase: Phase) -> IntCounter {
        self.set
            .timeouts
            .with_label_values(&[route, phase.as_str()])
    }

    /// `ftpulse_refused_names_total`.
    pub fn refused_names(&self, route: &str) -> IntCounter {
        self.set.refused_names.with_label_values(&[route])
    }

    /// `ftpulse_spool_files`.
    pub fn spool_files(&self, route: &str) -> IntGauge {
        self.set.spool_files.with_label_values(&[route])
    }

    /// `ftpulse_spool_bytes`.
    pub fn spool_bytes(&self, route: &str) -> IntGauge {
        self.set.spool_bytes.with_label_values(&[route])
    }

    /// `ftpulse_dead_letters`.
    pub fn dead_letters(&self, route: &str) -> IntGauge {
        self.set.dead_letters.with_label_values(&[route])
    }

    /// `ftpulse_oldest_pending_timestamp_seconds`, Unix seconds; `None` (nothing waits) takes the
    /// series away, so that an alert on its age cannot fire on an empty spool.
    pub fn set_oldest_pending(&self, route: &str, unix: Option<f64>) {
        match unix {
            Some(unix) => self
                .set
                .oldest_pending
                .with_label_values(&[route])
                .set(unix),
            // An error means that the series is absent already.
            None => drop(self.set.oldest_pending.remove_label_values(&[route])),
        }
    }

    /// `ftpulse_last_success_timestamp_seconds`, Unix seconds; absent until the first call.
    pub fn set_last_success(&self, route: &str, unix: f64) {
        self.set.last_success.with_label_values(&[route]).set(unix);
    }

    /// `ftpulse_watchdog_restarts_total`.
    pub fn watchdog_restarts(&self, reason: RestartReason) -> IntCounter {
        self.set
            .watchdog_restarts
            .with_label_values(&[reason.as_str()])
    }

    /// `ftpulse_log_dropped_total`.
    pub fn log_dropped(&self) -> &IntCounter {
        &self.set.log_dropped
    }

    /// The Prometheus text format, of type [`CONTENT_TYPE`]. Reads /proc, takes no lock for long.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.set.registry.gather())
    }
}

impl Set {
    fn register(registry: Registry) -> Self {
        let r = &registry;
        Self {
            files: counters(
                r,
                "ftpulse_files_total",
                "Files finished, by what became of them: delivered (stands whole under its final \
                 name), dead_letter (given up and moved aside), skipped (left out by a rule).",
                &["route", "outcome"],
            ),
            upload_attempts: counters(
                r,
                "ftpulse_upload_attempts_total",
                "Attempts to upload a file, by result: ok, error (refused by the server or the \
                 local file), timeout (a timer ended a wait), reset (a wedged uploader was \
                 replaced).",
                &["route", "result"],
            ),
            upload_bytes: counters(
                r,
                "ftpulse_upload_bytes_total",
                "Bytes of file content sent to the server, attempts that failed included.",
                &["route"],
            ),
            upload_duration: histograms(
                r,
                "ftpulse_upload_duration_seconds",
                "Time one successful upload took, from its start to the final name.",
                "route",
                UPLOAD_BUCKETS,
            ),
            beats: counters(
                r,
                "ftpulse_beats_total",
                "Heartbeats of the upload workers: acked (the worker answered itself), vouched \
                 (its silence was shown to be legitimate), missed (neither).",
                &["route", "result"],
            ),
            uploader_resets: counters(
                r,
                "ftpulse_uploader_resets_total",
                "Deadlocked uploaders that were ended and replaced, by the cause found.",
                &["route", "cause"],
            ),
            detection: histograms(
                r,
                "ftpulse_detection_seconds",
                "Time from an upload's last sign of life to the verdict that it is deadlocked.",
                "cause",
                HEALING_BUCKETS,
            ),
            recovery: histograms(
                r,
                "ftpulse_recovery_seconds",
                "Time from the verdict that an upload is deadlocked to the delivery of its file.",
                "cause",
                HEALING_BUCKETS,
            ),
            quarantine_pairs: gauge(
                r,
                "ftpulse_quarantine_pairs",
                "Socket pairs of ended uploads that are held in the quarantine now.",
            ),
            quarantine_capacity: gauge(
                r,
                "ftpulse_quarantine_capacity",
                "Socket pairs the quarantine can hold before it releases the earliest.",
            ),
            quarantine_send_bytes: gauge(
                r,
                "ftpulse_quarantine_send_bytes",
                "Unsent bytes that quarantined sockets hold in kernel memory.",
            ),
            quarantine_releases: counters(
                r,
                "ftpulse_quarantine_releases_total",
                "Socket pairs released from the quarantine, by reason: full (place needed), hold \
                 (held long enough), seats (took a login at its server), memory (too many unsent \
                 bytes), resume (its file is resumed), shutdown.",
                &["reason"],
            ),
            ready: gauge(
                r,
                "ftpulse_ready",
                "Whether spools and journal can be used (1), as /readyz tells with the reasons.",
            ),
            stranded_workers: gauge(
                r,
                "ftpulse_stranded_workers",
                "Upload threads that were ended but cannot end, for example on a hung disk.",
            ),
            timeouts: counters(
                r,
                "ftpulse_timeouts_total",
                "Waits ended by their timer, by what the upload was doing (phase).",
                &["route", "phase"],
            ),
            refused_names: counters(
                r,
                "ftpulse_refused_names_total",
                "Names that a remote folder lists and that must not become names here, each \
                 counted once (up to 1,000 a route).",
                &["route"],
            ),
            spool_files: gauges(
                r,
                "ftpulse_spool_files",
                "Files that wait to be sent, or in the remote folder to be downloaded.",
            ),
            dead_letters: gauges(
                r,
                "ftpulse_dead_letters",
                "Files that were given up and wait among the dead letters for a person.",
            ),
            spool_bytes: gauges(r, "ftpulse_spool_bytes", "Bytes of the files that wait."),
            oldest_pending: timestamps(
                r,
                "ftpulse_oldest_pending_timestamp_seconds",
                "Unix time since which the longest waiting file waits; absent if none does.",
            ),
            last_success: timestamps(
                r,
                "ftpulse_last_success_timestamp_seconds",
                "Unix time of the last delivery; absent until the first since the start.",
            ),
            watchdog_restarts: counters(
                r,
                "ftpulse_watchdog_restarts_total",
                "Times the watchdog started this service again, by reason: exit (it ended by \
                 itself, or not in time), beats (none came), no_pulse (frozen or dead), \
                 no_software_beat (its event loop was wedged), not_ready (not in time), garbage \
                 (unreadable beats). Kept across restarts.",
                &["reason"],
            ),
            log_dropped: kept(
                r,
                IntCounter::new(
                    "ftpulse_log_dropped_total",
                    "Log lines dropped because standard error did not take them in time.",
                ),
            ),
            registry,
        }
    }
}
