//! Plots as SVG, drawn by plotters.
//!
//! What is drawn has one of a few colours, and each stands for a name: the page's style says what they look like on light and on
//! dark ground, by matching the colour's text. Titles, legends and units are the page's too, so that nothing in a plot can run into
//! anything else.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// A plot's size in the page's pixels.
const WIDTH: u32 = 420;
const HEIGHT: u32 = 210;
/// Coordinates are whole numbers; this many of them make a pixel.
const FINE: u32 = 2;
/// A tick's letters, in pixels.
const LETTERS: u32 = 11;

/// Dashes between two points.
const DASHES: u32 = 12;

const GRID: RGBColor = RGBColor(0xE1, 0xE0, 0xD9);
const AXIS: RGBColor = RGBColor(0xC3, 0xC2, 0xB7);
const TICKS: RGBColor = RGBColor(0x52, 0x51, 0x4E);
const SHADE: RGBColor = RGBColor(0xF0, 0xEF, 0xEC);

/// What something is drawn in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// The n-th of several equals.
    Series(usize),
    /// What went wrong.
    Bad,
    /// The rest, and what is only there to compare with.
    Muted,
}

/// How many equals can be told apart.
pub(super) const SERIES: [RGBColor; 8] = [
    RGBColor(0x2A, 0x78, 0xD6),
    RGBColor(0x1B, 0xAF, 0x7A),
    RGBColor(0xED, 0xA1, 0x00),
    RGBColor(0x00, 0x83, 0x00),
    RGBColor(0x4A, 0x3A, 0xA7),
    RGBColor(0xE3, 0x49, 0x48),
    RGBColor(0xE8, 0x7B, 0xA4),
    RGBColor(0xEB, 0x68, 0x34),
];

impl Ink {
    fn color(self) -> RGBColor {
        match self {
            Ink::Series(place) => SERIES[place % SERIES.len()],
            Ink::Bad => RGBColor(0xD0, 0x3B, 0x3B),
            Ink::Muted => RGBColor(0x89, 0x87, 0x81),
        }
    }

    /// Its class in the page's style.
    pub(super) fn class(self) -> String {
        match self {
            Ink::Series(place) => format!("s{}", place % SERIES.len() + 1),
            Ink::Bad => "bad".to_owned(),
            Ink::Muted => "muted".to_owned(),
        }
    }
}

/// Something that is drawn.
pub(super) enum Shape {
    /// Through these points.
    Line(Vec<(f64, f64)>),
    /// A line with its points marked.
    Dotted(Vec<(f64, f64)>),
    /// Through these points, which bound something.
    Dashed(Vec<(f64, f64)>),
    /// Between two lines: x, from, to.
    Band(Vec<(f64, f64, f64)>),
}

/// One direction.
#[derive(Clone)]
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) ticks: usize,
    pub(super) tell: fn(&f64) -> String,
}

/// A plot.
pub(super) struct Plot {
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// From and to on the x axis: lightly shaded.
    pub(super) shaded: Vec<(f64, f64)>,
    /// A level that means something.
    pub(super) level: Option<f64>,
    pub(super) shapes: Vec<(Ink, Shape)>,
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Plot {
    /// Draws it.
    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow::anyhow!("a plot cannot be drawn: {error}"))?;
        // In a page of HTML the name space is known, and an address in it would look like something to be fetched.
        let svg = svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
        Ok(svg.replace(" opacity=\"1\"", "").replace(" \"/>", "\"/>"))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = SVGBackend::with_string(svg, (WIDTH * FINE, HEIGHT * FINE)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8 * FINE)
            .margin_right(20 * FINE)
            .x_label_area_size(24 * FINE)
            .y_label_area_size(48 * FINE)
            .build_cartesian_2d(self.x.from..self.x.to, self.y.from..self.y.to)?;
        for (from, to) in &self.shaded {
            let corners = [(from.max(self.x.from), self.y.from), (to.min(self.x.to), self.y.to)];
            chart.draw_series([Rectangle::new(corners, SHADE.filled())])?;
        }
        let letters = TextStyle::from(("sans-serif", LETTERS * FINE)).color(&TICKS);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(self.x.ticks)
            .y_labels(self.y.ticks)
            .x_label_formatter(&self.x.tell)
            .y_label_formatter(&self.y.tell)
            .bold_line_style(GRID.stroke_width(FINE))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS.stroke_width(FINE))
            .label_style(letters)
            .draw()?;
        self.fill(&mut chart)?;
        drop(chart);
        area.present()?;
        Ok(())
    }

    fn fill(&self, chart: &mut Chart) -> Result<(), Box<dyn std::error::Error + '_>> {
        if let Some(level) = self.level.filter(|level| *level <= self.y.to) {
            let line = vec![(self.x.from, level), (self.x.to, level)];
            chart.draw_series([PathElement::new(line, Ink::Muted.color().stroke_width(FINE))])?;
        }
        for (ink, shape) in &self.shapes {
            let color = ink.color();
            match shape {
                Shape::Line(points) => {
                    chart.draw_series([PathElement::new(points.clone(), color.stroke_width(2 * FINE))])?;
                }
                Shape::Dotted(points) => {
                    chart.draw_series([PathElement::new(points.clone(), color.stroke_width(2 * FINE))])?;
                    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4 * FINE, color.filled())))?;
                }
                Shape::Dashed(points) => {
                    chart.draw_series(dashes(points).map(|dash| PathElement::new(dash, color.stroke_width(FINE))))?;
                    // A bound that one size alone has is a point.
                    chart.draw_series(points.iter().map(|point| Circle::new(*point, 2 * FINE, color.filled())))?;
                }
                Shape::Band(edges) => {
                    let over = edges.iter().map(|(x, _, to)| (*x, *to));
                    let under = edges.iter().rev().map(|(x, from, _)| (*x, *from));
                    chart.draw_series([Polygon::new(over.chain(under).collect::<Vec<_>>(), color.filled())])?;
                }
            }
        }
        Ok(())
    }
}

/// Every other piece of the lines between points.
fn dashes(points: &[(f64, f64)]) -> impl Iterator<Item = Vec<(f64, f64)>> {
    points.windows(2).flat_map(|ends| {
        let ((x, y), (to_x, to_y)) = (ends[0], ends[1]);
        let at = move |piece: u32| {
            let share = f64::from(piece) / f64::from(2 * DASHES);
            (x + (to_x - x) * share, y + (to_y - y) * share)
        };
        (0..DASHES).map(move |dash| vec![at(2 * dash), at(2 * dash + 1)])
    })
}

/// From nothing to a round number above `most`.
pub(super) fn up_to(most: f64, tell: fn(&f64) -> String) -> Axis {
    Axis { from: 0.0, to: round_up(most), ticks: 5, tell }
}

fn round_up(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let grain = 10_f64.powf(most.log10().floor());
    let round = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].into_iter().map(|times| times * grain);
    round.into_iter().find(|round| *round >= most * 0.999).unwrap_or(most)
}

/// Milliseconds in powers of ten, from `least` to `most`; points on it are logarithms.
pub(super) fn powers(least: f64, most: f64) -> Axis {
    let from = least.max(1.0).log10().floor();
    let to = most.max(1.0).log10().ceil().max(from + 1.0);
    Axis { from, to, ticks: 6, tell: power }
}

/// Where milliseconds are on an axis of powers.
pub(super) fn power_of(ms: f64) -> f64 {
    ms.max(1.0).log10()
}

fn power(power: &f64) -> String {
    // Powers of ten alone: what is between them has no room for its name.
    if (power - power.round()).abs() > 1e-6 {
        return String::new();
    }
    crate::sim::words::span(10_f64.powf(*power))
}

/// Shares of one.
pub(super) fn shares() -> Axis {
    Axis { from: 0.0, to: 1.0, ticks: 5, tell: |share| format!("{:.0}%", share * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (most, end) in [(0.0, 1.0), (7.0, 8.0), (10.0, 10.0), (11.0, 15.0), (0.21, 0.3), (951.0, 1_000.0)] {
            assert!((up_to(most, |_| String::new()).to - end).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn a_plot_fetches_nothing() {
        let plot = Plot {
            x: up_to(3.0, crate::sim::words::tick),
            y: powers(1.0, 900.0),
            shaded: vec![(1.0, 2.0)],
            level: Some(1.0),
            shapes: vec![(Ink::Bad, Shape::Dotted(vec![(0.0, 0.0), (3.0, 2.0)]))],
        };
        let svg = plot.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("http"), "{svg}");
        assert!(svg.contains("100 ms"), "{svg}");
    }
}
