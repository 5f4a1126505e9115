//! Medians with their spread, of repeated runs, as a Markdown table for RESULTS.md.
//!
//! Repetitions of one run are the files `NAME.1.json`, `NAME.2.json`, …; a figure is named by its JSON pointer. With
//! `--against X`, each `NAME-Y` has a column more: its first figure as a share of that of `NAME-X`, repetition by
//! repetition, so that what disturbed both disturbs the share little.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

/// Columns that are shown, unless named: those of which there is a figure.
const COLUMNS: [&str; 8] = [
    "/broker/cpu_us_per_delivered=broker CPU µs per delivery",
    "/traffic/received_per_second=received/s",
    "/traffic/acknowledge/p50_us=acknowledge p50 µs",
    "/traffic/acknowledge/p99_us=acknowledge p99 µs",
    "/traffic/end_to_end/p99_us=end to end p99 µs",
    "/traffic/send_lag/p99_us=generator lag p99 µs",
    "/broker/rss_per_connection=resident bytes per connection",
    "/connections/seconds_to_last=last CONNACK after s",
];

/// Medians of repeated runs, as a Markdown table.
#[derive(Args, Clone, Debug)]
pub struct SummarizeOptions {
    /// Reports as JSON; repetitions are named NAME.1.json, NAME.2.json, …
    pub files: Vec<PathBuf>,
    /// Figures to show, as JSON pointers with their headings, separated by commas. Default: the usual ones.
    #[arg(long, value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Also show each run's first figure as a share of the run of the same name that ends so.
    #[arg(long)]
    pub against: Option<String>,
    /// Instead: the medians that criterion left in this directory.
    #[arg(long)]
    pub criterion: Option<PathBuf>,
}

impl SummarizeOptions {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.files.is_empty() && self.criterion.is_none() {
            bail!("name files, or --criterion DIR");
        }
        match self.columns.iter().find(|column| !column.starts_with('/')) {
            Some(column) => bail!("a column begins with /, unlike {column:?}: /traffic/sent=sent"),
            None => Ok(()),
        }
    }
}

/// The table.
pub fn run(options: &SummarizeOptions) -> Result<String> {
    if let Some(directory) = &options.criterion {
        return criterion_table(directory);
    }
    let mut runs = Vec::new();
    for path in &options.files {
        runs.push((name_of(path), read(path)?));
    }
    let default = options.columns.is_empty();
    let columns: Vec<(&str, &str)> = match default {
        true => COLUMNS.iter().map(|&column| split(column)).collect(),
        false => options.columns.iter().map(|column| split(column)).collect(),
    };
    Ok(table(&runs, &columns, options.against.as_deref(), default))
}

fn read(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))
}

/// `target/qos0-b8.3.json` is a repetition of `qos0-b8`.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    match stem.rsplit_once('.') {
        Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
        _ => stem,
    }
}

fn split(column: &str) -> (&str, &str) {
    column.split_once('=').unwrap_or((column, column))
}

/// Figures of a pointer, by name of the run; names in the order of their first file.
struct Figures<'a> {
    names: Vec<&'a str>,
    runs: &'a [(String, Value)],
}

impl<'a> Figures<'a> {
    fn new(runs: &'a [(String, Value)]) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in runs {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        Self { names, runs }
    }

    /// In the order of repetition.
    fn of(&self, name: &str, pointer: &str) -> Vec<f64> {
        let same = self.runs.iter().filter(|(of, _)| of == name);
        same.filter_map(|(_, value)| value.pointer(pointer).and_then(number)).collect()
    }

    fn repetitions(&self, name: &str) -> usize {
        self.runs.iter().filter(|(of, _)| of == name).count()
    }
}

/// Numbers are figures, and so is yes (1) or no (0).
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(f64::from))
}

fn table(runs: &[(String, Value)], columns: &[(&str, &str)], against: Option<&str>, drop_empty: bool) -> String {
    let figures = Figures::new(runs);
    let filled = |pointer: &str| figures.names.iter().any(|name| !figures.of(name, pointer).is_empty());
    let columns: Vec<_> = columns.iter().filter(|(pointer, _)| !drop_empty || filled(pointer)).collect();
    let mut heads = vec!["run".to_owned(), "n".to_owned()];
    heads.extend(columns.iter().map(|(_, title)| (*title).to_owned()));
    heads.extend(against.map(|rival| format!("share of {rival}")));
    let mut out = row(&heads);
    out += &row(&vec!["---".to_owned(); heads.len()]);
    for name in &figures.names {
        let mut cells = vec![(*name).to_owned(), figures.repetitions(name).to_string()];
        cells.extend(columns.iter().map(|(pointer, _)| cell(figures.of(name, pointer))));
        if let (Some(rival), Some((pointer, _))) = (against, columns.first()) {
            cells.push(cell(shares(&figures, name, rival, pointer)));
        }
        out += &row(&cells);
    }
    out
}

/// The first figure of each repetition over that of the rival's same repetition; none for the rival itself.
fn shares(figures: &Figures<'_>, name: &str, rival: &str, pointer: &str) -> Vec<f64> {
    let Some((base, own)) = name.rsplit_once('-') else { return Vec::new() };
    if own == rival {
        return Vec::new();
    }
    let theirs = figures.of(&format!("{base}-{rival}"), pointer);
    figures.of(name, pointer).iter().zip(theirs).map(|(own, their)| own / their).collect()
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// `median (least–most)`; the median alone of a single one.
fn cell(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    match figures[..] {
        [] => String::new(),
        [one] => short(one),
        [least, .., most] => format!("{} ({}–{})", short(median(&figures)), short(least), short(most)),
    }
}

/// Of sorted figures, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Three digits, or all before the point, with commas; whole numbers as such.
fn short(figure: f64) -> String {
    let size = figure.abs();
    if size < 9.995 && figure.fract() != 0.0 {
        return format!("{figure:.2}");
    }
    if size < 99.95 && figure.fract() != 0.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{size:.0}");
    let mut out = String::from(if figure < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What criterion left: one line per bench, median with its 95 % interval.
fn criterion_table(directory: &Path) -> Result<String> {
    let mut found = BTreeMap::new();
    collect(directory, &mut found).with_context(|| format!("cannot read {}", directory.display()))?;
    if found.is_empty() {
        bail!("no bench has left its estimates in {}", directory.display());
    }
    let mut out = String::from("| bench | median | 95 % interval | of | each |\n| --- | --- | --- | --- | --- |\n");
    for (name, (estimates, about)) in &found {
        let figure = |pointer| estimates.pointer(pointer).and_then(Value::as_f64);
        let (Some(median), Some(low), Some(high)) = (
            figure("/median/point_estimate"),
            figure("/median/confidence_interval/lower_bound"),
            figure("/median/confidence_interval/upper_bound"),
        ) else {
            bail!("{name}: estimates of an unknown form");
        };
        let (of, each) = throughput(median, about);
        writeln!(out, "| {name} | {} | {}–{} | {of} | {each} |", time(median), time(low), time(high))
            .expect("a string takes all");
    }
    Ok(out)
}

/// How much one iteration does, and the time of one element of it.
fn throughput(median: f64, about: &Value) -> (String, String) {
    let of = |kind: &str| about["throughput"][kind].as_f64();
    match (of("Elements"), of("Bytes")) {
        (Some(count), _) if count > 1.0 => (format!("{} elements", short(count)), time(median / count)),
        (_, Some(bytes)) => (format!("{} bytes", short(bytes)), String::new()),
        _ => (String::new(), String::new()),
    }
}

/// Finds `…/new/estimates.json`, by the bench's name in the `benchmark.json` beside it.
fn collect(directory: &Path, found: &mut BTreeMap<String, (Value, Value)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.ends_with("new") && path.join("estimates.json").is_file() {
            let about = read(&path.join("benchmark.json"))?;
            let name = about["full_id"].as_str().context("a benchmark.json without full_id")?.to_owned();
            found.insert(name, (read(&path.join("estimates.json"))?, about));
        } else {
            collect(&path, found)?;
        }
    }
    Ok(())
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{} ns", short(ns)),
        ns if ns < 1e6 => format!("{} µs", short(ns / 1e3)),
        ns => format!("{} ms", short(ns / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn runs() -> Vec<(String, Value)> {
        let run = |name: &str, cpu: f64| (name.to_owned(), json!({"broker": {"cpu": cpu}, "ok": true}));
        vec![
            run("b1-mosquitto", 10.0),
            run("b1-postroad", 2.0),
            run("b1-mosquitto", 20.0),
            run("b1-postroad", 1.0),
            run("b1-mosquitto", 12.0),
            run("b1-postroad", 3.0),
        ]
    }

    #[test]
    fn repetitions_are_one_line() {
        let text = table(&runs(), &[("/broker/cpu", "CPU"), ("/ok", "well")], Some("mosquitto"), false);
        let expected = "\
| run | n | CPU | well | share of mosquitto |
| --- | --- | --- | --- | --- |
| b1-mosquitto | 3 | 12 (10–20) | 1 (1–1) |  |
| b1-postroad | 3 | 2 (1–3) | 1 (1–1) | 0.20 (0.05–0.25) |
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_figure_that_is_missing_is_an_empty_cell_or_no_column() {
        let runs = [("a".to_owned(), json!({"x": 1.5}))];
        let columns = [("/x", "x"), ("/y", "y")];
        assert!(table(&runs, &columns, None, false).contains("| a | 1 | 1.50 |  |"));
        assert!(!table(&runs, &columns, None, true).contains('y'));
    }

    #[test]
    fn names_lose_their_number() {
        assert_eq!(name_of(Path::new("dir/qos0-b8-postroad.12.json")), "qos0-b8-postroad");
        assert_eq!(name_of(Path::new("durable.json")), "durable");
        assert_eq!(name_of(Path::new("v1.x.json")), "v1.x");
    }

    #[test]
    fn medians_of_odd_and_even() {
        assert_eq!(cell(vec![3.0, 1.0, 2.0]), "2 (1–3)");
        assert_eq!(cell(vec![4.0, 1.0, 2.0, 3.0]), "2.50 (1–4)");
        assert_eq!(cell(vec![]), "");
    }

    #[test]
    fn figures_are_short() {
        for (figure, text) in
            [(0.0, "0"), (3.0, "3"), (9.999, "10.0"), (99.99, "100"), (1_234_567.4, "1,234,567"), (-1_000.0, "-1,000")]
        {
            assert_eq!(short(figure), text);
        }
    }

    #[test]
    fn what_criterion_left_is_read() {
        let directory = std::env::temp_dir().join(format!("postroad-criterion-{}", std::process::id()));
        let new = directory.join("log/fsync/new");
        fs::create_dir_all(&new).unwrap();
        let interval = json!({"lower_bound": 900.0, "upper_bound": 2_000_000.0});
        let estimates = json!({"median": {"point_estimate": 64_000.0, "confidence_interval": interval}});
        fs::write(new.join("estimates.json"), estimates.to_string()).unwrap();
        let about = json!({"full_id": "log/fsync/64", "throughput": {"Elements": 64}});
        fs::write(new.join("benchmark.json"), about.to_string()).unwrap();
        let text = criterion_table(&directory);
        fs::remove_dir_all(&directory).unwrap();
        let text = text.unwrap();
        assert!(text.contains("| log/fsync/64 | 64 µs | 900 ns–2 ms | 64 elements | 1 µs |"), "{text}");
        let bytes = json!({"throughput": {"Bytes": 2_048}});
        assert_eq!(throughput(5.0, &bytes), ("2,048 bytes".to_owned(), String::new()));
    }
}
