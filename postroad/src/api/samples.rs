//! What `/metrics` says, read back (Prometheus text format 0.0.4, as our own server writes it).

use std::collections::BTreeMap;

/// All samples of one answer.
#[derive(Debug, Default, PartialEq)]
pub struct Samples(Vec<Sample>);

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    /// Reads the text; a line that is no sample is passed by.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of a metric over all its labels; 0 if there is none.
    pub fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|sample| sample.value).sum::<f64>() + 0.0 // of none it is -0
    }

    /// The value of a metric by one of its labels, summed over the others.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<&str, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name) {
            if let Some(text) = sample.labels.get(label) {
                *sums.entry(text.as_str()).or_insert(0.0) += sample.value;
            }
        }
        sums
    }

    /// The label of a metric's sample that is 1.
    pub fn state(&self, name: &str, label: &str) -> Option<&str> {
        let set = self.of(name).find(|sample| sample.value > 0.5)?;
        set.labels.get(label).map(String::as_str)
    }

    /// By how much a counter has grown, summed over all its labels but one.
    pub fn growth_by(&self, before: &Self, name: &str, label: &str) -> BTreeMap<&str, f64> {
        let mut sums = BTreeMap::new();
        for (sample, growth) in self.grown(before, name) {
            if let Some(text) = sample.labels.get(label) {
                *sums.entry(text.as_str()).or_insert(0.0) += growth;
            }
        }
        sums
    }

    /// As `growth_by`, summed over all labels.
    pub fn growth(&self, before: &Self, name: &str) -> f64 {
        self.grown(before, name).map(|(_, growth)| growth).sum::<f64>() + 0.0 // of none it is -0
    }

    /// What either look lacks (a shard that did not answer in time) has not grown, and neither has a counter that began anew.
    fn grown(&self, before: &Self, name: &str) -> impl Iterator<Item = (&Sample, f64)> {
        self.of(name).filter_map(|sample| {
            let old = before.of(name).find(|old| old.labels == sample.labels)?;
            Some((sample, (sample.value - old.value).max(0.0)))
        })
    }

    /// The upper bound of the histogram's bucket that holds this share of what was observed since `before`; `None` if there
    /// was nothing.
    pub fn quantile_since(&self, before: &Self, name: &str, share: f64) -> Option<f64> {
        let bound = |text: &str| if text == "+Inf" { f64::INFINITY } else { text.parse().unwrap_or(f64::INFINITY) };
        let growth = self.growth_by(before, &format!("{name}_bucket"), "le");
        let mut below: Vec<(f64, f64)> = growth.into_iter().map(|(text, count)| (bound(text), count)).collect();
        below.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = below.last().map_or(0.0, |(_, count)| *count);
        let holds = |(_, count): &&(f64, f64)| *count >= share * all;
        (all > 0.0).then(|| below.iter().find(holds).map(|(bound, _)| *bound)).flatten()
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match head.split_once('{') {
        Some((name, labels)) => (name, labels_of(labels.strip_suffix('}')?)?),
        None => (head, BTreeMap::new()),
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `a="b",c="d\"e"`
fn labels_of(text: &str) -> Option<BTreeMap<String, String>> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once("=\"")?;
        let (mut value, mut characters) = (String::new(), quoted.char_indices());
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE t histogram\nt_bucket{shard=\"0\",le=\"0.1\"} 5\nt_bucket{shard=\"0\",le=\"1\"} 6\nt_bucket{shard=\"0\",le=\"+Inf\"} 6\n";
    const AFTER: &str = "up 12.5\nphase{phase=\"serving\"} 1\nphase{phase=\"draining\"} 0\n\
        n{shard=\"0\",why=\"a \\\"b\\\", c\\\\\\n\"} 3\nn{shard=\"1\",why=\"x\"} 4\nno sample here\n\
        t_bucket{shard=\"0\",le=\"0.1\"} 5\nt_bucket{shard=\"0\",le=\"1\"} 15\nt_bucket{shard=\"0\",le=\"+Inf\"} 16\n\
        t_bucket{shard=\"1\",le=\"0.1\"} 0\nt_bucket{shard=\"1\",le=\"1\"} 0\nt_bucket{shard=\"1\",le=\"+Inf\"} 0\n";

    #[test]
    fn samples_are_read_and_summed() {
        let samples = Samples::parse(AFTER);
        assert_eq!([samples.sum("up"), samples.sum("n"), samples.sum("nothing")], [12.5, 7.0, 0.0]);
        assert_eq!(samples.by("n", "shard"), BTreeMap::from([("0", 3.0), ("1", 4.0)]));
        assert_eq!(samples.by("n", "why"), BTreeMap::from([("a \"b\", c\\\n", 3.0), ("x", 4.0)]));
        assert_eq!(samples.state("phase", "phase"), Some("serving"));
    }

    #[test]
    fn a_quantile_is_that_of_what_came_since() {
        let (before, after) = (Samples::parse(BEFORE), Samples::parse(AFTER));
        let quantile = |share| after.quantile_since(&before, "t", share);
        assert_eq!([quantile(0.5), quantile(0.9), quantile(0.99)], [Some(1.0), Some(1.0), Some(f64::INFINITY)]);
        assert_eq!(after.quantile_since(&after, "t", 0.5), None);
        assert_eq!(after.quantile_since(&Samples::default(), "t", 0.25), None);
    }

    /// A shard that answers only one of two looks made the sums of all shards leap.
    #[test]
    fn what_one_look_lacks_has_not_grown() {
        let both = Samples::parse("n{shard=\"0\"} 100\nn{shard=\"1\"} 500\n");
        let one = Samples::parse("n{shard=\"0\"} 130\n");
        let anew = Samples::parse("n{shard=\"0\"} 7\nn{shard=\"1\"} 600\n");
        assert_eq!([one.growth(&both, "n"), both.growth(&one, "n"), anew.growth(&both, "n")], [30.0, 0.0, 100.0]);
        assert_eq!(anew.growth_by(&both, "n", "shard"), BTreeMap::from([("0", 0.0), ("1", 100.0)]));
    }
}
