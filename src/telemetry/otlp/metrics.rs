//! Metrics as /metrics shows them, as OTLP's. Made from that page, so that neither tells what the
//! other does not; a receiver that translates names to Prometheus's arrives at the same.

use std::collections::BTreeMap;

use crate::domain::Timestamp;

use super::{
    proto::{Value, Writer},
    records::nanos,
};

const CUMULATIVE: u64 = 2;

/// A series' labels, and under which a histogram's buckets come together.
type Labels<'a> = Vec<(&'a str, String)>;

#[derive(Debug, Default)]
struct Family<'a> {
    help: &'a str,
    kind: &'a str,
    /// Labels and value; of a histogram by labels without `le`.
    points: Vec<(Labels<'a>, f64)>,
    histograms: BTreeMap<Labels<'a>, Histogram>,
}

#[derive(Debug, Default)]
struct Histogram {
    sum: f64,
    count: u64,
    /// Upper bounds and how many lie at or below each.
    buckets: Vec<(f64, u64)>,
}

/// What a page of metrics says, family by family, in its order.
fn families(page: &str) -> Vec<(&str, Family<'_>)> {
    let mut families: Vec<(&str, Family<'_>)> = Vec::new();
    for line in page.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut parts = told.splitn(3, ' ');
            let (Some(what), Some(name)) = (parts.next(), parts.next()) else {
                continue;
            };
            let text = parts.next().unwrap_or_default();
            if families.last().is_none_or(|(known, _)| *known != name) {
                families.push((name, Family::default()));
            }
            match (what, families.last_mut()) {
                ("HELP", Some((_, family))) => family.help = text,
                ("TYPE", Some((_, family))) => family.kind = text,
                _ => {}
            }
            continue;
        }
        if let Some((name, family)) = families.last_mut()
            && let Some((series, value)) = line.rsplit_once(' ')
        {
            family.add(name, series, value);
        }
    }
    families.retain(|(_, family)| !family.points.is_empty() || !family.histograms.is_empty());
    families
}

impl<'a> Family<'a> {
    fn add(&mut self, name: &str, series: &'a str, value: &str) {
        let value: f64 = value.parse().unwrap_or(f64::NAN);
        let (full, labels) = match series.split_once('{') {
            Some((full, rest)) => (full, labels(rest.trim_end_matches('}'))),
            None => (series, Vec::new()),
        };
        if self.kind != "histogram" {
            self.points.push((labels, value));
            return;
        }
        let (bounds, rest): (Vec<_>, Vec<_>) =
            labels.into_iter().partition(|(name, _)| *name == "le");
        let histogram = self.histograms.entry(rest).or_default();
        match full.strip_prefix(name) {
            Some("_sum") => histogram.sum = value,
            Some("_count") => histogram.count = whole(value),
            Some("_bucket") => {
                let bound = bounds.first().and_then(|(_, bound)| bound.parse().ok());
                let bucket = (bound.unwrap_or(f64::INFINITY), whole(value));
                histogram.buckets.push(bucket);
            }
            _ => {}
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole, and below 2^53"
)]
fn whole(n: f64) -> u64 {
    n.max(0.0) as u64
}

/// `name="value",…`, with the escapes of the format.
fn labels(mut text: &str) -> Labels<'_> {
    let mut labels = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at.saturating_add(1);
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c)) => value.push(c),
                    None => {}
                },
                c => value.push(c),
            }
        }
        labels.push((name.trim_start_matches(','), value));
        text = rest.get(end..).unwrap_or_default();
    }
    labels
}

/// A name as OpenTelemetry has it, and its unit.
pub(super) fn named(prometheus: &str) -> (String, &'static str) {
    let (stem, unit) = match prometheus {
        name if name.ends_with("_seconds") => (name.trim_end_matches("_seconds"), "s"),
        name if name.ends_with("_bytes") => (name.trim_end_matches("_bytes"), "By"),
        // A unit of 1 would have a receiver add `_ratio` to gauges.
        name => (name, ""),
    };
    (stem.replacen('_', ".", 1), unit)
}

/// Writes a list of metrics from a page of them; how many there are.
pub(super) fn metrics(out: &mut Vec<u8>, page: &str, begun: Timestamp, now: Timestamp) -> u64 {
    let families = families(page);
    for (name, family) in &families {
        let (name, unit) = named(name);
        Writer(out).message(2, |metric| {
            metric.text(1, &name);
            metric.text(2, family.help);
            if !unit.is_empty() {
                metric.text(3, unit);
            }
            match family.kind {
                "histogram" => metric.message(9, |histogram| {
                    for (labels, told) in &family.histograms {
                        histogram.message(1, |point| told.write(point, labels, begun, now));
                    }
                    histogram.uint(2, CUMULATIVE);
                }),
                "counter" => metric.message(7, |sum| {
                    points(sum, family, begun, now);
                    sum.uint(2, CUMULATIVE);
                    sum.uint(3, 1);
                }),
                _ => metric.message(5, |gauge| points(gauge, family, begun, now)),
            }
        });
    }
    families.len() as u64
}

fn points(list: &mut Writer<'_>, family: &Family<'_>, begun: Timestamp, now: Timestamp) {
    for (labels, value) in &family.points {
        list.message(1, |point| {
            point.fixed64(2, nanos(begun));
            point.fixed64(3, nanos(now));
            point.double(4, *value);
            for (name, value) in labels {
                point.attribute(7, name, Value::Text(value));
            }
        });
    }
}

impl Histogram {
    fn write(&self, point: &mut Writer<'_>, labels: &Labels<'_>, begun: Timestamp, now: Timestamp) {
        point.fixed64(2, nanos(begun));
        point.fixed64(3, nanos(now));
        point.fixed64(4, self.count);
        point.double(5, self.sum);
        let below = std::iter::once(0).chain(self.buckets.iter().map(|(_, count)| *count));
        let counts: Vec<u8> = self
            .buckets
            .iter()
            .zip(below)
            .flat_map(|((_, upto), below)| upto.saturating_sub(below).to_le_bytes())
            .collect();
        point.bytes(6, &counts);
        let bounds = self.buckets.iter().map(|(bound, _)| *bound);
        let bounds: Vec<u8> = bounds
            .filter(|bound| bound.is_finite())
            .flat_map(f64::to_le_bytes)
            .collect();
        point.bytes(7, &bounds);
        for (name, value) in labels {
            point.attribute(9, name, Value::Text(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_written() {
        let page = "# HELP x_y_seconds How long.\n# TYPE x_y_seconds histogram\nx_y_seconds_sum 1.5\nx_y_seconds_count 4\nx_y_seconds_bucket{le=\"0.1\"} 1\nx_y_seconds_bucket{le=\"+Inf\"} 4\n# HELP x_n Odd.\n# TYPE x_n counter\nx_n_total{a=\"q\\\"u\\\\o\\nt,e\",b=\"\"} 3\n# HELP x_none None.\n# TYPE x_none gauge\n# EOF\n";
        let read = families(page);
        assert_eq!(read.len(), 2, "one without a series is left out");
        let histogram = &read[0].1.histograms[&Vec::new()];
        assert_eq!((histogram.sum, histogram.count), (1.5, 4));
        assert_eq!(histogram.buckets, [(0.1, 1), (f64::INFINITY, 4)]);
        assert_eq!(
            read[1].1.points,
            [(
                vec![("a", "q\"u\\o\nt,e".to_owned()), ("b", String::new())],
                3.0
            )]
        );
        assert_eq!(
            named("exeat_decision_duration_seconds").0,
            "exeat.decision_duration"
        );
    }
}
