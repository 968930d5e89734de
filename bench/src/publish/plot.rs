//! Plots as SVG that takes its colours from the page: light or dark, whatever the reader has set.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{BenchError, Result};

/// Of every plot, in pixels: narrow, so that its text is still readable when a phone shrinks it.
const SIZE: (u32, u32) = (440, 320);
/// Colours that the page replaces by its own, see [`themed`].
const INK: RGBColor = RGBColor(1, 2, 200);
const FAINT: RGBColor = RGBColor(1, 2, 201);
/// Colours of series.
pub(super) const COLOURS: usize = 9;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// Decades have the same width.
    Log,
    /// The same, told in powers of four: 1, 4, 16…
    Fours,
    /// Of quantiles: every further nine has the same width.
    Nines,
}

/// What an axis tells.
#[derive(Clone, Copy)]
pub(super) struct AxisSpec {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) format: fn(f64) -> String,
}

/// A line, or a bar when it has one point.
pub(super) struct Series {
    pub(super) name: String,
    /// Below [`COLOURS`].
    pub(super) colour: usize,
    pub(super) points: Vec<(f64, f64)>,
    /// Of a bar: the interval that holds its value.
    pub(super) range: Option<(f64, f64)>,
}

#[derive(Clone)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    format: fn(f64) -> String,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log | Self::Fours => value.max(1e-12).log10(),
            Self::Nines => -(1.0 - value).max(1e-12).log10(),
        }
    }

    /// Where lines and labels go, between two values; at most about `most`.
    fn ticks(self, low: f64, high: f64, most: usize) -> Vec<f64> {
        match self {
            Self::Linear => {
                let rough = (high - low) / most.max(2) as f64;
                let decade = 10f64.powf(rough.max(1e-12).log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|it| it * decade).find(|it| *it >= rough);
                let step = step.unwrap_or(10.0 * decade);
                let first = (low / step).ceil() as i64;
                (first..).map(|at| at as f64 * step).take_while(|at| *at <= high).collect()
            }
            Self::Log => {
                let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
                for steps in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
                    let all = decades
                        .clone()
                        .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
                    let inside: Vec<f64> =
                        all.filter(|at| (low * 0.999..=high * 1.001).contains(at)).collect();
                    if inside.len() <= most {
                        return inside;
                    }
                }
                decades.map(|decade| 10f64.powi(decade)).filter(|at| (low..=high).contains(at)).collect()
            }
            Self::Fours => {
                let all = (0..16).map(|power| 4f64.powi(power));
                all.filter(|at| (low..=high).contains(at)).collect()
            }
            Self::Nines => {
                let all = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
                all.into_iter().filter(|at| *at <= high).collect()
            }
        }
    }
}

impl Axis {
    /// Around all `values`; the linear one from zero.
    fn around(spec: AxisSpec, values: impl Iterator<Item = f64> + Clone) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match spec.scale {
            Scale::Linear => (0.0, if most > 0.0 { most * 1.12 } else { 1.0 }),
            Scale::Log | Scale::Fours => (least / 1.25, most * 1.25),
            Scale::Nines => (0.0, most),
        };
        Self { scale: spec.scale, low, high, format: spec.format }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (low, high) = (self.scale.place(self.low), self.scale.place(self.high));
        let share = (self.scale.place(*value) - low) / (high - low).max(1e-12);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.scale.ticks(self.low, self.high, hint.max_num_points().min(9))
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.format)(*value)
    }
}

/// Lines with a dot for each point that stands for a measurement. None without two points on any line.
///
/// # Errors
/// The plotting library's.
pub(super) fn lines(x: AxisSpec, y: AxisSpec, series: &[Series], dots: bool) -> Result<Option<String>> {
    if !series.iter().any(|each| each.points.len() > 1) {
        return Ok(None);
    }
    draw(SIZE, |area| {
        let points = series.iter().flat_map(|each| each.points.iter().copied());
        let across = Axis::around(x, points.clone().map(|(x, _)| x));
        let up = Axis::around(y, points.map(|(_, y)| y));
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            // A tick at the end has half its label beyond it, and nines have long ones.
            .margin_right(if x.scale == Scale::Nines { 32 } else { 16 })
            .x_label_area_size(46)
            .y_label_area_size(84)
            .build_cartesian_2d(across, up)?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 14, &INK))
            .axis_desc_style(("sans-serif", 14, &INK))
            .x_labels(if x.scale == Scale::Nines { 6 } else { 7 })
            .y_labels(8)
            .x_desc(x.label)
            .y_desc(y.label)
            .draw()?;
        for each in series {
            let style = colour(each.colour).stroke_width(2);
            chart.draw_series(LineSeries::new(each.points.iter().copied(), style))?;
            if dots {
                let dot = |point: &(f64, f64)| Circle::new(*point, 3, colour(each.colour).filled());
                chart.draw_series(each.points.iter().map(dot))?;
            }
        }
        Ok(())
    })
    .map(Some)
}

/// A bar for each series, from zero, with its value beside it, and the interval on it where there is one.
///
/// # Errors
/// The plotting library's.
pub(super) fn bars(x: AxisSpec, series: &[Series]) -> Result<Option<String>> {
    let values: Vec<f64> = series.iter().filter_map(|each| Some(each.points.first()?.1)).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let ends: Vec<f64> = series
        .iter()
        .zip(&values)
        .map(|(each, value)| each.range.map_or(*value, |(_, high)| high.max(*value)))
        .collect();
    let most = ends.iter().copied().fold(0.0, f64::max);
    let height = 64 + 30 * values.len() as u32;
    draw((SIZE.0, height), |area| {
        // Room for the longest bar's number.
        let across = Axis { scale: Scale::Linear, low: 0.0, high: 1.25 * most.max(1e-9), format: x.format };
        let rows = 0.0..values.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(46)
            .y_label_area_size(148)
            .build_cartesian_2d(across, rows)?;
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(5)
            .label_style(("sans-serif", 14, &INK))
            .axis_desc_style(("sans-serif", 14, &INK))
            .x_desc(x.label)
            .draw()?;
        let label = |h| ("sans-serif", 14).into_font().color(&INK).pos(Pos::new(h, VPos::Center));
        for (place, ((each, value), end)) in series.iter().zip(&values).zip(&ends).enumerate() {
            let middle = (values.len() - place) as f64 - 0.5;
            let bar = [(0.0, middle - 0.32), (*value, middle + 0.32)];
            chart.draw_series([Rectangle::new(bar, colour(each.colour).filled())])?;
            if let Some((low, high)) = each.range.filter(|(low, high)| low < high) {
                let across = |x: f64| vec![(x, middle - 0.16), (x, middle + 0.16)];
                let lines = [vec![(low, middle), (high, middle)], across(low), across(high)];
                chart.draw_series(lines.map(|line| PathElement::new(line, INK)))?;
            }
            let beside =
                EmptyElement::at((*end, middle)) + Text::new((x.format)(*value), (6, 0), label(HPos::Left));
            chart.draw_series([beside])?;
            let name =
                EmptyElement::at((0.0, middle)) + Text::new(each.name.clone(), (-8, 0), label(HPos::Right));
            chart.draw_series([name])?;
        }
        Ok(())
    })
    .map(Some)
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(size: (u32, u32), paint: impl FnOnce(&Drawing<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    let outcome = {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        paint(&area).and_then(|()| Ok(area.present()?))
    };
    outcome.map_err(|error| BenchError::io("plotting")(std::io::Error::other(error.to_string())))?;
    Ok(themed(&text, size))
}

/// A series' colour, as a sign for [`themed`].
fn colour(number: usize) -> RGBColor {
    RGBColor(1, 2, number.min(COLOURS - 1) as u8)
}

/// The page's colours instead of the signs, and a width that follows the page's.
fn themed(svg: &str, (width, height): (u32, u32)) -> String {
    let mut text = svg.replace("\"#0102C8\"", "\"var(--ink)\"").replace("\"#0102C9\"", "\"var(--faint)\"");
    for number in 0..COLOURS {
        text = text.replace(&format!("\"#0102{number:02X}\""), &format!("\"var(--c{number})\""));
    }
    text.replace(&format!("width=\"{width}\" height=\"{height}\" "), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: AxisSpec = AxisSpec { label: "x", scale: Scale::Linear, format: |it| format!("{it}") };

    fn series(points: Vec<(f64, f64)>) -> Vec<Series> {
        vec![Series { name: "one".to_owned(), colour: 3, points, range: None }]
    }

    #[test]
    fn plots_take_their_colours_from_the_page() {
        let log = AxisSpec { scale: Scale::Log, ..PLAIN };
        let line = lines(PLAIN, log, &series(vec![(1.0, 10.0), (2.0, 1000.0)]), true).unwrap().unwrap();
        let bar = bars(PLAIN, &series(vec![(0.0, 5.0)])).unwrap().unwrap();
        for svg in [&line, &bar] {
            assert!(svg.starts_with("<svg viewBox="), "{}", &svg[..80]);
            for wanted in ["var(--c3)", "var(--ink)", "var(--faint)"] {
                assert!(svg.contains(wanted), "{wanted} in {svg}");
            }
            assert!(!svg.contains("#0102"), "{svg}");
        }
    }

    #[test]
    fn an_interval_lies_on_its_bar() {
        let mut one = series(vec![(0.0, 5.0)]);
        let count = |series: &[Series]| bars(PLAIN, series).unwrap().unwrap().matches("<polyline").count();
        let bare = count(&one);
        one[0].range = Some((5.0, 5.0));
        assert_eq!(count(&one), bare, "one round has no interval");
        one[0].range = Some((4.0, 6.0));
        assert_eq!(count(&one), bare + 3, "a line with two ends");
    }

    #[test]
    fn one_point_is_no_line() {
        assert!(lines(PLAIN, PLAIN, &series(vec![(1.0, 1.0)]), true).unwrap().is_none());
        assert!(bars(PLAIN, &[]).unwrap().is_none());
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(Scale::Linear.ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Scale::Log.ticks(9.0, 210.0, 9), [10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!(Scale::Log.ticks(1.0, 1e9, 9).len(), 10, "decades are always told");
        assert_eq!(Scale::Nines.ticks(0.0, 0.9995, 9), [0.5, 0.9, 0.99, 0.999]);
    }

    #[test]
    fn every_further_nine_has_the_same_width() {
        let axis = Axis { scale: Scale::Nines, low: 0.0, high: 0.999, format: |it| it.to_string() };
        let places = [0.0, 0.9, 0.99, 0.999].map(|quantile| axis.map(&quantile, (0, 300)));
        assert_eq!(places, [0, 100, 200, 300]);
    }
}
