//! Line charts as SVG text. Colours come from the page's style sheet, so that one drawing serves light and dark.

use std::fmt::Write;

/// Size of a drawing, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Room for the labels: left, right, top, bottom.
const MARGINS: (f64, f64, f64, f64) = (56.0, 14.0, 12.0, 30.0);
/// Most points of a line: more than one per two units cannot be seen.
const MOST_POINTS: usize = 360;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Thin, for noisy values.
    Faint,
    /// Full.
    Strong,
    /// Dashed, for what was not measured in this run.
    Dashed,
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
    /// Whether the vertical axis begins at 0.
    pub from_zero: bool,
}

impl Chart {
    /// The drawing with its title and legend; nothing if there are no points.
    pub fn html(&self) -> String {
        let lines: Vec<(&Series, Vec<(f64, f64)>)> = self
            .series
            .iter()
            .map(|s| {
                (
                    s,
                    thin(
                        &s.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect::<Vec<_>>(),
                        s.look,
                    ),
                )
            })
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let all = || lines.iter().flat_map(|(_, points)| points.iter());
        if all().next().is_none() {
            return String::new();
        }
        let (mut x0, mut x1) = bounds(all().map(|p| p.0));
        if x0 == x1 {
            (x0, x1) = (x0 - 0.5, x1 + 0.5);
        }
        let (low, high) = bounds(all().map(|p| p.1));
        // A level far off the lines would press them flat.
        let reach = (high - low).max(1e-12);
        let near = |y: f64| y > low - 0.5 * reach && y < high + 0.25 * reach;
        let levels: Vec<&(String, f64)> = self.levels.iter().filter(|(_, y)| near(*y)).collect();
        let (low, high) = bounds([low, high].into_iter().chain(levels.iter().map(|l| l.1)));
        let (mut y0, mut y1) =
            if self.from_zero { (0.0, high * 1.05) } else { (low - 0.04 * (high - low), high + 0.04 * (high - low)) };
        if y0 == y1 {
            (y0, y1) = (y0 - 0.5, y1 + 0.5);
        }
        let (left, right, top, bottom) = MARGINS;
        let x = |v: f64| left + (v - x0) / (x1 - x0) * (WIDTH - left - right);
        let y = |v: f64| HEIGHT - bottom - (v - y0) / (y1 - y0) * (HEIGHT - top - bottom);
        let mut svg = String::new();
        for tick in ticks(y0, y1, 5) {
            let at = y(tick);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{left}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - right,
                left - 6.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in ticks(x0, x1, 7) {
            let _ = write!(
                svg,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                x(tick),
                HEIGHT - bottom + 16.0,
                number(tick)
            );
        }
        let _ = write!(
            svg,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - right,
            HEIGHT - 1.0,
            self.x_name
        );
        for (name, value) in levels {
            let at = y(*value);
            let _ = write!(
                svg,
                r#"<line class="level" x1="{left}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{} {}</text>"#,
                WIDTH - right,
                WIDTH - right - 4.0,
                at - 4.0,
                escape(name),
                number(*value)
            );
        }
        let mut data = Vec::new();
        for (series, points) in &lines {
            let class = match series.look {
                Look::Faint => "faint",
                Look::Strong => "strong",
                Look::Dashed => "dashed",
                Look::Dots => "dots",
            };
            if series.look == Look::Dots {
                for (px, py) in points {
                    let _ = write!(
                        svg,
                        r#"<circle class="dots c{}" cx="{:.1}" cy="{:.1}" r="3"/>"#,
                        series.colour,
                        x(*px),
                        y(*py)
                    );
                }
            } else {
                let path: Vec<String> = points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
                let _ =
                    write!(svg, r#"<polyline class="line {class} c{}" points="{}"/>"#, series.colour, path.join(" "));
                if series.look == Look::Strong {
                    for (px, py) in points.iter().filter(|_| points.len() <= 40) {
                        let _ = write!(
                            svg,
                            r#"<circle class="c{}" cx="{:.1}" cy="{:.1}" r="2.2"/>"#,
                            series.colour,
                            x(*px),
                            y(*py)
                        );
                    }
                }
            }
            data.push(serde_json::json!({"name": series.name, "colour": series.colour, "points": rounded(points)}));
        }
        let legend: String = lines
            .iter()
            .map(|(s, _)| {
                format!(
                    r#"<span class="key c{} {}">{}</span>"#,
                    s.colour,
                    if s.look == Look::Dashed { "keydashed" } else { "" },
                    escape(&s.name)
                )
            })
            .collect();
        let frame = serde_json::json!({"x": [x0, x1], "left": left, "right": WIDTH - right, "series": data});
        format!(
            r#"<figure class="chart"><figcaption>{}<span class="legend">{legend}</span></figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}" data-frame='{}'>{svg}<line class="cursor" y1="{top}" y2="{:.1}" x1="-9" x2="-9"/></svg><output></output></figure>"#,
            escape(&self.title),
            escape(&self.title),
            escape(&frame.to_string()),
            HEIGHT - bottom
        )
    }
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

/// Round numbers between two, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|t| *t <= high + step * 1e-9).collect()
}

/// A number in few characters: 1.5M, 12k, 0.034, 3e-4.
pub fn number(v: f64) -> String {
    let a = v.abs();
    let trim = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    match a {
        0.0 => "0".to_owned(),
        a if a >= 1e9 => trim(format!("{:.2}", v / 1e9)) + "B",
        a if a >= 1e6 => trim(format!("{:.2}", v / 1e6)) + "M",
        a if a >= 1e4 => trim(format!("{:.1}", v / 1e3)) + "k",
        a if a >= 100.0 => trim(format!("{v:.1}")),
        a if a >= 1e-2 => trim(format!("{v:.3}")),
        _ => format!("{v:.1e}").replace(".0e", "e"),
    }
}

/// Text that stands for itself in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let series = vec![Series { name: "a<b".into(), points, look: Look::Strong, colour: 0 }];
        Chart {
            title: "Loss".into(),
            x_name: "steps",
            series,
            levels: vec![("far".into(), 1e9), ("near".into(), 2.0)],
            from_zero: false,
        }
    }

    #[test]
    fn a_chart_shows_finite_points_near_levels_and_escaped_names() {
        let html =
            chart((0..5000).map(|i| (i as f64, 1.0 + i as f64 / 1000.0)).chain([(5000.0, f64::NAN)]).collect()).html();
        assert!(
            !html.contains("NaN") && html.contains("a&lt;b") && html.contains("near") && !html.contains("far"),
            "{html}"
        );
        let points = html.split("points=\"").nth(1).expect("a line").split('"').next().expect("points");
        assert!(points.split(' ').count() <= MOST_POINTS);
        assert_eq!(chart(vec![(1.0, f64::NAN)]).html(), "", "nothing to draw");
    }

    #[test]
    fn ticks_are_round_and_numbers_short() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(7.0, 7.9, 4), [7.0, 7.5]);
        assert_eq!(
            [number(1_500_000.0), number(12_000.0), number(0.034), number(0.0003)],
            ["1.5M", "12k", "0.034", "3e-4"]
        );
    }
}
