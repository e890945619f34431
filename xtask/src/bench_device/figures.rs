//! The figures of a run, their limits, and how both are shown.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// What the rows of one run measured.
pub(super) struct Report {
    pub(super) host: Value,
    pub(super) direct: Value,
    pub(super) wire: Value,
    pub(super) bulk: Value,
    pub(super) bulk_loss: Value,
    pub(super) ucx: Option<Value>,
}

/// On which side of its limit a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// A figure with a limit: link, name, words, unit, limit of the project.
type Row = (&'static str, &'static str, &'static str, &'static str, Limit);

const ROWS: [Row; 9] = [
    ("host", "write_64_us", "WRITE of 64 B, one way", "µs", Limit::AtMost(0.25)),
    ("host", "send_64_us", "SEND of 64 B, one way", "µs", Limit::AtMost(0.45)),
    ("host", "rate_64_mps", "SENDs of 64 B", "M/s", Limit::AtLeast(6.0)),
    ("host", "bw_64k_of_memcpy", "WRITE of 64 KiB, to memcpy", "", Limit::AtLeast(0.85)),
    ("host", "bw_1m_of_memcpy", "WRITE of 1 MiB, to memcpy", "", Limit::AtLeast(0.85)),
    ("direct", "send_64_us", "SEND of 64 B in one process", "µs", Limit::AtMost(0.20)),
    ("wire", "rtt_64_to_udp", "round trip of 64 B, to UDP", "", Limit::AtMost(1.5)),
    ("wire", "bulk_gbytes_per_s", "WRITE of 1 MiB", "GB/s", Limit::AtLeast(3.5)),
    ("wire", "bulk_1pct_loss_gbytes_per_s", "the same, 1 % lost", "GB/s", Limit::AtLeast(0.0)),
];

/// Bandwidth under loss must be at least this share of that without, in the same run.
const LOSS_SHARE: f64 = 0.5;

/// Whether a figure is within its limit.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    link: &'static str,
    name: &'static str,
    value: f64,
    limit: Limit,
    pub(super) met: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, limit) = match self.limit {
            Limit::AtMost(limit) => ("at most", limit),
            Limit::AtLeast(limit) => ("at least", limit),
        };
        write!(f, "{}.{} is {:.3}, {word} {limit:.2} wanted", self.link, self.name, self.value)
    }
}

/// For each figure the verdict that is met, if either is.
pub(super) fn better(before: &[Verdict], now: &[Verdict]) -> Vec<Verdict> {
    before.iter().zip(now).map(|(before, now)| if before.met { before } else { now }.clone()).collect()
}

fn number(figures: &Value, name: &str) -> f64 {
    // A figure that is not there is no number, and meets no limit.
    figures[name].as_f64().unwrap_or(f64::NAN)
}

/// Rounded to what can be reproduced at all.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

impl Report {
    fn value(&self, link: &str, name: &str) -> f64 {
        let ratio =
            |figures: &Value, above: &str, below: &str| number(figures, above) / number(figures, below);
        match (link, name) {
            ("host", "bw_64k_of_memcpy") => {
                ratio(&self.host, "bw_64k_gbytes_per_s", "memcpy_64k_gbytes_per_s")
            }
            ("host", "bw_1m_of_memcpy") => ratio(&self.host, "bw_1m_gbytes_per_s", "memcpy_1m_gbytes_per_s"),
            ("host", name) => number(&self.host, name),
            ("direct", name) => number(&self.direct, name),
            (_, "rtt_64_to_udp") => ratio(&self.wire, "rtt_64_us", "udp_rtt_64_us"),
            (_, "bulk_gbytes_per_s") => number(&self.bulk, "bulk_gbytes_per_s"),
            (_, _) => number(&self.bulk_loss, "bulk_gbytes_per_s"),
        }
    }

    /// Each figure against its limit.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        ROWS.iter()
            .map(|&(link, name, _, _, limit)| {
                let value = self.value(link, name);
                let limit = if name == "bulk_1pct_loss_gbytes_per_s" {
                    Limit::AtLeast(LOSS_SHARE * self.value("wire", "bulk_gbytes_per_s"))
                } else {
                    limit
                };
                let met = match limit {
                    Limit::AtMost(limit) => value <= limit,
                    Limit::AtLeast(limit) => value >= limit,
                };
                Verdict { link, name, value, limit, met }
            })
            .collect()
    }

    /// The object of `--json`.
    pub(super) fn json(&self) -> Value {
        let mut object = json!({ "host": {}, "direct": {}, "wire": {} });
        for (link, name, ..) in ROWS {
            object[link][name] = rounded(self.value(link, name));
        }
        if let Some(ucx) = &self.ucx {
            object["ucx"] = ucx.clone();
        }
        object
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{:7} {:28} {:>9} {:5} {:>10}\n", "link", "", "", "", "limit");
        for ((link, _, words, unit, _), verdict) in ROWS.iter().zip(self.verdicts()) {
            let limit = match verdict.limit {
                Limit::AtMost(limit) => format!("≤ {limit:.2}"),
                Limit::AtLeast(limit) => format!("≥ {limit:.2}"),
            };
            let mark = if verdict.met { "" } else { "  missed" };
            let _ = writeln!(text, "{link:7} {words:28} {:>9.3} {unit:5} {limit:>10}{mark}", verdict.value);
        }
        let _ = writeln!(
            text,
            "\nreferences of the same run: UDP round trip {:.2} µs; memcpy of 64 KiB {:.1} GB/s, of 1 MiB {:.1} GB/s",
            number(&self.wire, "udp_rtt_64_us"),
            number(&self.host, "memcpy_64k_gbytes_per_s"),
            number(&self.host, "memcpy_1m_gbytes_per_s"),
        );
        if let Some(ucx) = &self.ucx {
            let _ = writeln!(
                text,
                "UCX over shared memory: put {:.3} µs, am {:.3} µs, {:.2} M/s of 64 B, put of 64 KiB {:.1} GB/s, of 1 MiB {:.1} GB/s",
                number(ucx, "put_64_us"),
                number(ucx, "am_64_us"),
                number(ucx, "rate_64_mps"),
                number(ucx, "bw_64k_gbytes_per_s"),
                number(ucx, "bw_1m_gbytes_per_s"),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            host: json!({
                "write_64_us": 0.2, "send_64_us": 0.4, "rate_64_mps": 7.0, "bw_64k_gbytes_per_s": 9.0,
                "memcpy_64k_gbytes_per_s": 10.0, "bw_1m_gbytes_per_s": 9.0, "memcpy_1m_gbytes_per_s": 10.0,
            }),
            direct: json!({ "send_64_us": 0.15 }),
            wire: json!({ "rtt_64_us": 6.0, "udp_rtt_64_us": 5.0 }),
            bulk: json!({ "bulk_gbytes_per_s": 4.0 }),
            bulk_loss: json!({ "bulk_gbytes_per_s": 2.5 }),
            ucx: None,
        }
    }

    #[test]
    fn the_object_has_the_keys_of_the_project_and_no_other() {
        let wanted = json!({
            "host": {
                "write_64_us": 0.2, "send_64_us": 0.4, "rate_64_mps": 7.0,
                "bw_64k_of_memcpy": 0.9, "bw_1m_of_memcpy": 0.9,
            },
            "direct": { "send_64_us": 0.15 },
            "wire": {
                "rtt_64_to_udp": 1.2, "bulk_gbytes_per_s": 4.0, "bulk_1pct_loss_gbytes_per_s": 2.5,
            },
        });
        assert_eq!(report().json(), wanted);
        assert!(report().verdicts().iter().all(|verdict| verdict.met));
    }

    #[test]
    fn each_limit_bites_and_a_later_run_can_meet_it() {
        let mut bad = report();
        bad.host["send_64_us"] = json!(0.46);
        bad.bulk_loss = json!({ "bulk_gbytes_per_s": 1.9 });
        bad.direct = json!({});
        let missed: Vec<String> = bad
            .verdicts()
            .iter()
            .filter(|verdict| !verdict.met)
            .map(|verdict| verdict.name.to_owned())
            .collect();
        assert_eq!(missed, ["send_64_us", "send_64_us", "bulk_1pct_loss_gbytes_per_s"]);
        assert!(better(&bad.verdicts(), &report().verdicts()).iter().all(|verdict| verdict.met));
        assert!(bad.table().contains("missed"));
    }
}
