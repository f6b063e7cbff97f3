//! Line charts as SVG text. Colours come from the page's style sheet, so that one drawing serves light and dark.

use std::fmt::Write;

use super::axis::{Axis, number};

/// Width and height of a drawing, in its own units.
const SIDE: f64 = 1000.0;
/// Most points of a line: more than one per two units cannot be seen.
const MOST_POINTS: usize = 360;
/// Height of a line of text (page.css) in a chart, and in a wide one, which is higher.
const LABEL: f64 = SIDE * 14.4 / 180.0;
const LABEL_WIDE: f64 = SIDE * 14.4 / 280.0;
/// A chart whose values lie further apart than this factor is drawn in factors, where it may be.
const WIDE_RANGE: f64 = 4.0;

/// Colours of the page (page.css), and the strokes in which each comes again.
const COLOURS: usize = 5;
const STROKES: [&str; 4] = ["", "broken", "dotted", "mixed"];

/// The classes of a line's colour; more lines than colours are told apart by their strokes.
fn colours(colour: usize) -> String {
    let stroke = STROKES[(colour / COLOURS) % STROKES.len()];
    let space = if stroke.is_empty() { "" } else { " " };
    format!("c{}{space}{stroke}", colour % COLOURS)
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// Thin, for noisy values.
    Faint,
    /// Full.
    Strong,
    /// Dashed, for what was not measured in this run, amid what may lie this far above and below.
    Reference(f64),
    /// Dots only.
    Dots,
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x ascending.
    pub points: Vec<(f64, f64)>,
    /// How it looks.
    pub look: Look,
    /// Which of the page's colours.
    pub colour: usize,
}

/// Where the vertical axis begins, and its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// At the least value.
    Fitted,
    /// At 0.
    FromZero,
    /// At the least value, in equal factors where the values lie far apart.
    Factors,
    /// As fitted, but over these two heights at least.
    Covering(f64, f64),
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// Name of the horizontal axis.
    pub x_name: &'static str,
    /// The lines.
    pub series: Vec<Series>,
    /// Named heights, drawn as thin lines across.
    pub levels: Vec<(String, f64)>,
    /// The vertical axis.
    pub scale: Scale,
    /// As wide as the page.
    pub wide: bool,
}

/// A chart's lines with the places of its axes.
struct Drawing<'a> {
    lines: Vec<(&'a Series, Vec<(f64, f64)>)>,
    levels: Vec<&'a (String, f64)>,
    x: Axis,
    y: Axis,
    /// Height of a line of text.
    label: f64,
}

impl Chart {
    /// The drawing with its title and legend; nothing if there are no points.
    pub fn html(&self) -> String {
        let Some(drawing) = self.drawing() else { return String::new() };
        let legend: String = drawing
            .lines
            .iter()
            .map(|(s, _)| {
                let dashed = if matches!(s.look, Look::Reference(_)) { "keydashed" } else { "" };
                format!(r#"<span class="key {} {dashed}">{}</span>"#, colours(s.colour), escape(&s.name))
            })
            .collect();
        let (class, title) = (if self.wide { "chart wide" } else { "chart" }, escape(&self.title));
        format!(
            r#"<figure class="{class}"><figcaption>{title}<span class="legend">{legend}</span></figcaption>{}<output></output></figure>"#,
            drawing.html(&title, self.x_name)
        )
    }

    fn drawing(&self) -> Option<Drawing<'_>> {
        let finite = |s: &Series| -> Vec<(f64, f64)> {
            s.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
        };
        let lines: Vec<(&Series, Vec<(f64, f64)>)> = self
            .series
            .iter()
            .map(|s| (s, thin(&finite(s), s.look)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let all = || lines.iter().flat_map(|(_, points)| points.iter());
        all().next()?;
        let (x0, x1) = bounds(all().map(|p| p.0));
        let covered = if let Scale::Covering(low, high) = self.scale { vec![low, high] } else { Vec::new() };
        let (low, high) = bounds(all().map(|p| p.1).chain(covered));
        // A level far off the lines would press them flat.
        let reach = (high - low).max(1e-12);
        let near = |y: f64| y > low - 0.5 * reach && y < high + 0.25 * reach;
        let levels: Vec<&(String, f64)> = self.levels.iter().filter(|(_, y)| near(*y)).collect();
        let (low, high) = bounds([low, high].into_iter().chain(levels.iter().map(|l| l.1)));
        let factors = self.scale == Scale::Factors && low > 0.0 && high > WIDE_RANGE * low;
        let y = match self.scale {
            _ if factors => Axis::logarithmic(low / 1.08, high * 1.08, SIDE, 0.0),
            Scale::FromZero => Axis::linear(0.0, high * 1.05, SIDE, 0.0),
            _ => Axis::linear(low - 0.04 * (high - low), high + 0.04 * (high - low), SIDE, 0.0),
        };
        let label = if self.wide { LABEL_WIDE } else { LABEL };
        Some(Drawing { lines, levels, x: Axis::linear(x0, x1, 0.0, SIDE), y, label })
    }
}

impl Drawing<'_> {
    /// The lines as SVG that is stretched over the chart, with the labels as text around it: so strokes and letters have
    /// one size on a telephone and on a wide screen.
    fn html(&self, title: &str, x_name: &str) -> String {
        let (mut svg, mut labels) = (String::new(), String::new());
        for tick in self.y.ticks(5) {
            let at = self.y.place(tick);
            let _ = write!(svg, r#"<line class="grid" x1="0" x2="{SIDE}" y1="{at:.1}" y2="{at:.1}"/>"#);
            let _ = write!(labels, r#"<span class="tick y" style="top:{}">{}</span>"#, percent(at), number(tick));
        }
        for tick in self.x.ticks(5) {
            let at = percent(self.x.place(tick));
            let _ = write!(labels, r#"<span class="tick x" style="left:{at}">{}</span>"#, number(tick));
        }
        let _ = write!(labels, r#"<span class="tick name">{x_name}</span>"#);
        let mut levels: Vec<(f64, &(String, f64))> =
            self.levels.iter().map(|level| (self.y.place(level.1), *level)).collect();
        levels.sort_by(|a, b| b.0.total_cmp(&a.0));
        // From the bottom up, each label above its line and clear of the one below.
        let mut free = f64::INFINITY;
        for (at, (name, value)) in levels {
            let _ = write!(svg, r#"<line class="level" x1="0" x2="{SIDE}" y1="{at:.1}" y2="{at:.1}"/>"#);
            let (name, value, top) = (escape(name), number(*value), at.min(free));
            free = top - self.label;
            let _ = write!(labels, r#"<span class="tick height" style="top:{}">{name} {value}</span>"#, percent(top));
        }
        // Bands below all lines.
        for (series, points) in &self.lines {
            if let Look::Reference(band) = series.look {
                svg += &self.band(points, band, series.colour);
            }
        }
        for (series, points) in &self.lines {
            svg += &self.line(series, points);
        }
        let data: Vec<serde_json::Value> = self
            .lines
            .iter()
            .map(|(s, points)| serde_json::json!({"name": s.name, "colour": s.colour, "points": rounded(points)}))
            .collect();
        let (x0, x1) = self.x.range();
        let frame = serde_json::json!({"x": [x0, x1], "series": data});
        format!(
            r#"<div class="plot"><svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" tabindex="0" aria-label="{title}: {}" data-frame='{}'>{svg}<line class="cursor" visibility="hidden" y1="0" y2="{SIDE}"/></svg>{labels}</div>"#,
            escape(&self.told(x_name)),
            escape(&frame.to_string()),
        )
    }

    /// What the lines show, in words.
    fn told(&self, x_name: &str) -> String {
        let each = |(series, points): &(&Series, Vec<(f64, f64)>)| {
            let (first, last) = (points.first()?, points.last()?);
            let lowest = points.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
            let [first, last, low, at] = [first.1, last.1, lowest.1, lowest.0].map(number);
            Some(format!("{} from {first} to {last}, lowest {low} at {at} {x_name}", series.name))
        };
        self.lines.iter().filter_map(each).collect::<Vec<_>>().join("; ")
    }

    fn places(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let (low, _) = self.y.range();
        let places = points.map(|(x, y)| format!("{:.1},{:.1}", self.x.place(x), self.y.place(y.max(low))));
        places.collect::<Vec<_>>().join(" ")
    }

    fn band(&self, points: &[(f64, f64)], band: f64, colour: usize) -> String {
        let above = points.iter().map(|(x, y)| (*x, y + band));
        let below = points.iter().rev().map(|(x, y)| (*x, y - band));
        format!(r#"<polygon class="band c{colour}" points="{}"/>"#, self.places(above.chain(below)))
    }

    fn line(&self, series: &Series, points: &[(f64, f64)]) -> String {
        // A line of no length has a round end, whose size does not follow the drawing's.
        let dot = |(x, y): &(f64, f64), size: &str| {
            let (x, y) = (self.x.place(*x), self.y.place(*y));
            format!(r#"<path class="{size} c{}" d="M{x:.1} {y:.1}h.01"/>"#, series.colour % COLOURS)
        };
        let class = match series.look {
            Look::Dots => return points.iter().map(|p| dot(p, "dot")).collect(),
            Look::Faint => "faint",
            Look::Strong => "strong",
            Look::Reference(_) => "dashed",
        };
        let mut svg = format!(
            r#"<polyline class="line {class} {}" points="{}"/>"#,
            colours(series.colour),
            self.places(points.iter().copied())
        );
        if series.look == Look::Strong && points.len() <= 40 {
            svg.extend(points.iter().map(|p| dot(p, "point")));
        }
        svg
    }
}

/// A place in a drawing as a part of its side.
fn percent(place: f64) -> String {
    format!("{:.2}%", 100.0 * place / SIDE)
}

/// Least and greatest; (0, 0) of nothing.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low <= high { (low, high) } else { (0.0, 0.0) }
}

/// At most [`MOST_POINTS`] points, each the mean of its neighbourhood; dots are all kept.
fn thin(points: &[(f64, f64)], look: Look) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS || look == Look::Dots {
        return points.to_vec();
    }
    let mean = |part: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| part.iter().map(of).sum::<f64>() / part.len() as f64;
    let ends = |i: usize| i * points.len() / MOST_POINTS;
    (0..MOST_POINTS)
        .map(|i| &points[ends(i)..ends(i + 1)])
        .map(|part| (mean(part, |p| p.0), mean(part, |p| p.1)))
        .collect()
}

fn rounded(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let round = |v: f64| format!("{v:.5e}").parse().unwrap_or(v);
    points.iter().map(|(x, y)| (round(*x), round(*y))).collect()
}

/// Text that stands for itself in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, look: Look) -> Chart {
        let series = vec![Series { name: "a<b".into(), points, look, colour: 0 }];
        Chart {
            title: "Loss".into(),
            x_name: "steps",
            series,
            levels: vec![("far".into(), 1e9), ("near".into(), 2.0)],
            scale: Scale::Fitted,
            wide: false,
        }
    }

    fn points_of<'a>(html: &'a str, element: &str) -> Vec<(f64, f64)> {
        let part: &'a str = html.split(element).nth(1).expect("the element");
        let points = part.split("points=\"").nth(1).and_then(|p| p.split('"').next()).expect("points");
        let number = |text: &str| text.parse::<f64>().expect("a number");
        points.split(' ').map(|p| p.split_once(',').map(|(x, y)| (number(x), number(y))).expect("a pair")).collect()
    }

    #[test]
    fn a_chart_shows_finite_points_near_levels_and_escaped_names() {
        let slope = (0..5000).map(|i| (i as f64, 1.0 + i as f64 / 1000.0)).chain([(5000.0, f64::NAN)]).collect();
        let html = chart(slope, Look::Strong).html();
        assert!(
            !html.contains("NaN") && html.contains("a&lt;b") && html.contains("near") && !html.contains("far"),
            "{html}"
        );
        assert!(points_of(&html, "<polyline").len() <= MOST_POINTS);
        assert_eq!(chart(vec![(1.0, f64::NAN)], Look::Strong).html(), "", "nothing to draw");
    }

    #[test]
    fn a_chart_is_told_in_words_and_reached_by_keyboard() {
        let html = chart(vec![(0.0, 4.0), (100.0, 1.5), (200.0, 2.0)], Look::Faint).html();
        let label = r#"tabindex="0" aria-label="Loss: a&lt;b from 4 to 2, lowest 1.5 at 100 steps""#;
        assert!(html.contains(label), "{html}");
    }

    #[test]
    fn as_many_lines_as_runs_are_told_apart() {
        let mut all: Vec<String> = (0..20).map(colours).collect();
        assert_eq!((&*all[0], &*all[4], &*all[5]), ("c0", "c4", "c0 broken"));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 20);
        let sixth = Series { colour: 5, ..chart(vec![(0.0, 1.0), (1.0, 2.0)], Look::Strong).series.remove(0) };
        let html = Chart { series: vec![sixth], ..chart(Vec::new(), Look::Strong) }.html();
        assert!(
            html.contains(r#"class="line strong c0 broken""#) && html.contains(r#"class="key c0 broken "#),
            "{html}"
        );
    }

    #[test]
    fn labels_of_levels_do_not_cover_each_other() {
        let levels = [("a", 2.0), ("b", 2.01), ("c", 2.02), ("d", 4.0)].map(|(name, y)| (name.to_owned(), y));
        let plain = chart(vec![(0.0, 1.0), (1.0, 5.0)], Look::Strong);
        let html = Chart { levels: levels.to_vec(), ..plain }.html();
        let parts = html.split("tick height\" style=\"top:").skip(1);
        let tops: Vec<f64> =
            parts.map(|part| part.split('%').next().expect("a place").parse().expect("a number")).collect();
        assert_eq!(tops.len(), 4);
        // 180 pixels high, lines of text of 14.4.
        assert!(tops.windows(2).all(|w| w[0] - w[1] >= 8.0 - 0.011), "{tops:?}");
    }

    #[test]
    fn a_reference_has_its_band_around_it() {
        let html = chart(vec![(0.0, 3.0), (1.0, 2.0)], Look::Reference(0.25)).html();
        let (line, band) = (points_of(&html, "<polyline"), points_of(&html, "<polygon"));
        assert_eq!(band.len(), 4);
        // Upwards is towards 0.
        assert!(band[0].1 < line[0].1 && line[0].1 < band[3].1, "{band:?} around {line:?}");
        assert!(
            (line[0].1 - band[0].1 - (band[3].1 - line[0].1)).abs() <= 0.2 + 1e-9,
            "as far above as below, but for rounding"
        );
    }

    #[test]
    fn what_falls_by_a_factor_is_drawn_in_factors() {
        let fall = |low: f64| {
            let steps = (0..=10).map(|i| (i as f64, 8.0 * (low / 8.0).powf(i as f64 / 10.0))).collect();
            let html = Chart { scale: Scale::Factors, ..chart(steps, Look::Strong) }.html();
            let places = points_of(&html, "<polyline");
            let step = |i: usize| places[i + 1].1 - places[i].1;
            step(0) / step(9)
        };
        assert!((fall(0.4) - 1.0).abs() < 0.05, "equal factors, equal steps");
        assert!(fall(4.0) > 1.5, "a small fall stays in equal differences");
    }
}
