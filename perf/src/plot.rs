//! Figures as SVG: lines over a growing number, or bars side by side.
//!
//! The input is text, a figure a line, columns separated by tabs:
//! - lines: series, x, y
//! - bars: name, value
//!
//! With `--log-x`, `--log-y` an axis has the logarithms of its values, with marks at powers of ten.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use plotters::prelude::*;

const WIDTH: u32 = 880;
const LINES_HEIGHT: u32 = 480;
/// Height of a bar with the space below it.
const BAR_HEIGHT: u32 = 26;
const BARS_HEAD: u32 = 110;
const FONT: &str = "sans-serif";

/// Draw figures as SVG.
#[derive(Args, Clone, Debug)]
pub struct PlotOptions {
    /// What to draw.
    #[arg(value_enum)]
    pub kind: Kind,
    /// File with the figures.
    pub input: PathBuf,
    /// File to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Line above the picture.
    #[arg(long)]
    pub title: String,
    /// What x is; bars: what the values are.
    #[arg(long, default_value = "")]
    pub x_label: String,
    /// What y is.
    #[arg(long, default_value = "")]
    pub y_label: String,
    #[arg(long)]
    pub log_x: bool,
    #[arg(long)]
    pub log_y: bool,
}

/// A form of picture.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line for each series.
    Lines,
    /// A bar for each name.
    Bars,
}

impl PlotOptions {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.kind == Kind::Bars && self.log_y {
            bail!("bars stand on names: --log-x is what they can have");
        }
        Ok(())
    }
}

/// Reads, draws, writes.
pub fn run(options: &PlotOptions) -> Result<()> {
    let text =
        fs::read_to_string(&options.input).with_context(|| format!("cannot read {}", options.input.display()))?;
    let picture = match options.kind {
        Kind::Lines => draw_lines(options, &read_lines(&text)?)?,
        Kind::Bars => draw_bars(options, &read_bars(&text)?)?,
    };
    fs::write(&options.out, picture).with_context(|| format!("cannot write {}", options.out.display()))
}

/// Points of each series, in the order of x.
type Series = BTreeMap<String, Vec<(f64, f64)>>;

fn read_lines(text: &str) -> Result<Series> {
    let mut series = Series::new();
    for row in rows(text) {
        let [name, x, y] = row[..] else { bail!("a line has series, x, y, not {row:?}") };
        series.entry(name.to_owned()).or_default().push((number(x)?, number(y)?));
    }
    series.values_mut().for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    if series.is_empty() {
        bail!("there are no figures");
    }
    Ok(series)
}

fn read_bars(text: &str) -> Result<Vec<(String, f64)>> {
    let bar = |row: Vec<&str>| {
        let [name, value] = row[..] else { bail!("a bar has name and value, not {row:?}") };
        Ok((name.to_owned(), number(value)?))
    };
    let bars = rows(text).map(bar).collect::<Result<Vec<_>>>()?;
    if bars.is_empty() {
        bail!("there are no figures");
    }
    Ok(bars)
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| line.split('\t').collect())
}

fn number(text: &str) -> Result<f64> {
    let value: f64 = text.trim().parse().with_context(|| format!("{text:?} is no number"))?;
    if value.is_finite() { Ok(value) } else { bail!("{text:?} is not finite") }
}

/// An axis: where its values stand.
#[derive(Clone, Copy, Debug)]
struct Axis {
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// One that shows all values; from 0, or (logarithms) from the power of ten below.
    fn of(values: impl Iterator<Item = f64> + Clone, log: bool) -> Result<Self> {
        if !log {
            let most = values.fold(0.0, f64::max);
            return Ok(Self { log, from: 0.0, to: if most > 0.0 { most * 1.05 } else { 1.0 } });
        }
        let (least, most) = values.fold((f64::INFINITY, 0.0), |(a, b), value| (a.min(value), f64::max(b, value)));
        if least <= 0.0 {
            bail!("{least} has no logarithm");
        }
        let (from, to) = (least.log10().floor(), most.log10().ceil());
        Ok(Self { log, from, to: if to > from { to } else { from + 1.0 } })
    }

    fn place(self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// Marks: at most so many.
    fn marks(self) -> usize {
        if self.log { (self.to - self.from) as usize + 1 } else { 8 }
    }

    fn text(self, place: &f64) -> String {
        let value = if self.log { 10_f64.powf(*place) } else { *place };
        short(value)
    }
}

/// 1.2 M, 30 k, 0.05.
fn short(value: f64) -> String {
    let trimmed = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match value.abs() {
        size if size >= 1e6 => trimmed(value / 1e6, 2) + " M",
        size if size >= 1e4 => trimmed(value / 1e3, 1) + " k",
        size if size >= 10.0 => trimmed(value, 1),
        _ => trimmed(value, 3),
    }
}

fn draw_lines(options: &PlotOptions, series: &Series) -> Result<String> {
    let points = || series.values().flatten();
    let x = Axis::of(points().map(|point| point.0), options.log_x)?;
    let y = Axis::of(points().map(|point| point.1), options.log_y)?;
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, (WIDTH, LINES_HEIGHT)).into_drawing_area();
        root.fill(&WHITE).map_err(cannot)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&options.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(74)
            .build_cartesian_2d(x.from..x.to, y.from..y.to)
            .map_err(cannot)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(x.marks())
            .y_labels(y.marks())
            .x_label_formatter(&|place| x.text(place))
            .y_label_formatter(&|place| y.text(place))
            .x_desc(&options.x_label)
            .y_desc(&options.y_label)
            .draw()
            .map_err(cannot)?;
        for (number, (name, points)) in series.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            let placed: Vec<_> = points.iter().map(|&(a, b)| (x.place(a), y.place(b))).collect();
            chart
                .draw_series(LineSeries::new(placed.iter().copied(), color.stroke_width(2)))
                .map_err(cannot)?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
            chart.draw_series(placed.iter().map(|&point| Circle::new(point, 3, color.filled()))).map_err(cannot)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(cannot)?;
        root.present().map_err(cannot)?;
    }
    Ok(picture)
}

fn draw_bars(options: &PlotOptions, bars: &[(String, f64)]) -> Result<String> {
    let x = Axis::of(bars.iter().map(|bar| bar.1), options.log_x)?;
    let mut picture = String::new();
    {
        let size = (WIDTH, BARS_HEAD + BAR_HEIGHT * bars.len() as u32);
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        root.fill(&WHITE).map_err(cannot)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&options.title, (FONT, 18))
            .margin(12)
            .margin_right(70)
            .x_label_area_size(46)
            .y_label_area_size(260)
            .build_cartesian_2d(x.from..x.to, 0.0..bars.len() as f64)
            .map_err(cannot)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .x_labels(x.marks())
            .x_label_formatter(&|place| x.text(place))
            .y_labels(0)
            .x_desc(&options.x_label)
            .draw()
            .map_err(cannot)?;
        let text = (FONT, 13).into_text_style(&root);
        for (number, (name, value)) in bars.iter().enumerate() {
            let (top, end) = ((bars.len() - number) as f64, x.place(*value));
            let bar = Rectangle::new([(x.from, top - 0.15), (end, top - 0.85)], Palette99::pick(0).filled());
            chart.draw_series([bar]).map_err(cannot)?;
            let (right, middle) = chart.backend_coord(&(end, top - 0.65));
            root.draw_text(&short(*value), &text, (right + 6, middle - 6)).map_err(cannot)?;
            let (_, middle) = chart.backend_coord(&(x.from, top - 0.65));
            root.draw_text(name, &text, (16, middle - 6)).map_err(cannot)?;
        }
        root.present().map_err(cannot)?;
    }
    Ok(picture)
}

fn cannot(error: impl Display) -> anyhow::Error {
    anyhow::anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: Kind) -> PlotOptions {
        PlotOptions {
            kind,
            input: PathBuf::new(),
            out: PathBuf::new(),
            title: "a title".to_owned(),
            x_label: "connections".to_owned(),
            y_label: "µs".to_owned(),
            log_x: true,
            log_y: false,
        }
    }

    #[test]
    fn lines_have_their_names_and_marks() {
        let series = read_lines("b\t10\t1\na\t100\t3\na\t10\t2\n\n").unwrap();
        assert_eq!(series["a"], [(10.0, 2.0), (100.0, 3.0)]);
        let picture = draw_lines(&options(Kind::Lines), &series).unwrap();
        for text in ["<svg", "a title", "connections", "µs", ">\na\n", ">\nb\n"] {
            assert!(picture.contains(text), "{text} is not in\n{picture}");
        }
        assert_eq!(picture.matches("<circle").count(), 3);
    }

    #[test]
    fn bars_have_their_values() {
        let bars = read_bars("mosquitto\t13.5\npostroad\t0.7\n").unwrap();
        let picture = draw_bars(&options(Kind::Bars), &bars).unwrap();
        for text in ["mosquitto", "13.5", "postroad", "0.7"] {
            assert!(picture.contains(text), "{text} is not in\n{picture}");
        }
    }

    #[test]
    fn what_can_not_be_drawn_is_refused() {
        read_lines("").expect_err("nothing");
        read_lines("a\t1\n").expect_err("no y");
        read_bars("a\tNaN\n").expect_err("no number");
        let zero = read_lines("a\t0\t1\n").unwrap();
        draw_lines(&options(Kind::Lines), &zero).expect_err("0 has no logarithm");
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.05, 0.7, 13.5, 400.0, 9_999.0, 30_000.0, 1_234_567.0].map(short);
        assert_eq!(all, ["0.05", "0.7", "13.5", "400", "9999", "30 k", "1.23 M"]);
    }
}
