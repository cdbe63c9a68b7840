//! How a metric is made and registered. The names are constants: one that is refused is a bug that
//! every test finds.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The build, as a metric that is always 1.
pub fn info(registry: &Registry, version: &str, revision: &str) {
    let build = kept(
        registry,
        IntGaugeVec::new(
            Opts::new(
                "ftpulse_build_info",
                "Always 1; the labels tell the version and the source revision that runs.",
            ),
            &["version", "revision"],
        ),
    );
    build.with_label_values(&[version, revision]).set(1);
}

/// Counters with labels.
pub fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    kept(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

/// A gauge.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    kept(registry, IntGauge::new(name, help))
}

/// Gauges of the routes.
pub fn gauges(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    kept(
        registry,
        IntGaugeVec::new(Opts::new(name, help), &["route"]),
    )
}

/// Unix times of the routes, with fractions.
pub fn timestamps(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    kept(registry, GaugeVec::new(Opts::new(name, help), &["route"]))
}

/// Histograms with one label.
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    buckets: &[f64],
) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    kept(registry, HistogramVec::new(opts, &[label]))
}

/// Registers a metric and gives it back.
#[allow(clippy::expect_used)]
pub fn kept<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("metric and label names are valid constants of the module above");
    keep(registry, metric.clone());
    metric
}

/// Registers a collector.
#[allow(clippy::expect_used)]
pub fn keep(registry: &Registry, collector: impl Collector + 'static) {
    registry
        .register(Box::new(collector))
        .expect("each metric of the module above is registered once");
}
