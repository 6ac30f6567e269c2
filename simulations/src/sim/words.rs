//! Numbers and names as people read them.

/// A number with as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    grouped(&format!("{value:.digits$}"))
}

/// Thousands apart.
fn grouped(plain: &str) -> String {
    let (whole, rest) = plain.split_once('.').map_or((plain, ""), |(whole, rest)| (whole, rest.trim_end_matches('0')));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{rest}") }
}

/// A count in at most four signs.
pub(super) fn short(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count < 1e3 => format!("{count}"),
        _ if count < 1e4 => format!("{:.1}k", count / 1e3),
        _ if count < 1e6 => format!("{:.0}k", count / 1e3),
        _ if count < 1e7 => format!("{:.1}M", count / 1e6),
        _ => format!("{:.0}M", count / 1e6),
    }
}

fn thousands(value: f64) -> String {
    if value.abs() >= 1e6 { format!("{}M", number(value / 1e6)) } else { format!("{}k", number(value / 1e3)) }
}

/// A span of milliseconds.
pub(super) fn span(ms: f64) -> String {
    match ms {
        _ if ms < 1e3 => format!("{} ms", number(ms)),
        _ if ms < 120e3 => format!("{} s", number(ms / 1e3)),
        _ if ms < 7_200e3 => format!("{} min", number(ms / 60e3)),
        _ => format!("{} h", number(ms / 3_600e3)),
    }
}

/// A figure's name and its unit, which is the end of it.
pub(super) fn label(figure: &str) -> (String, &'static str) {
    if let Some(rate) = figure.strip_suffix("_s").filter(|rate| rate.contains("_per")) {
        let (bare, each) = rate.strip_suffix("_per").map_or((rate, " and second"), |bare| (bare, " a second"));
        return (format!("{}{each}", bare.replace('_', " ")), "");
    }
    let units = [("_ms", "ms"), ("_s", "s"), ("_kB", "kB"), ("_MB", "MB")];
    let unit = units.into_iter().find(|(end, _)| figure.ends_with(end));
    let bare = unit.map_or(figure, |(end, _)| figure.trim_end_matches(end));
    (bare.replace('_', " "), unit.map_or("", |(_, unit)| unit))
}

/// A number beside an axis.
pub(super) fn tick(value: &f64) -> String {
    match *value {
        value if value.abs() >= 1e3 => thousands(value),
        value => number(value),
    }
}

/// One, or many of them.
pub(super) fn count(many: usize, one: &str) -> String {
    let s = if many == 1 { "" } else { "s" };
    format!("{} {one}{s}", grouped(&many.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_mean_something() {
        for (value, told) in [(0.0, "0"), (3.0, "3"), (0.523, "0.52"), (12.34, "12.3"), (1234567.8, "1,234,568"), (-0.5, "-0.5")]
        {
            assert_eq!(number(value), told);
        }
        assert_eq!([short(7), short(1_240), short(12_400), short(2_400_000)], ["7", "1.2k", "12k", "2.4M"]);
    }

    #[test]
    fn the_end_of_a_figures_name_is_its_unit() {
        assert_eq!(label("first_byte_p99_ms"), ("first byte p99".to_owned(), "ms"));
        assert_eq!(label("engine_steps_per_s"), ("engine steps a second".to_owned(), ""));
        assert_eq!(label("gossip_kB_per_node_s").0, "gossip kB per node and second");
        assert_eq!(label("connections"), ("connections".to_owned(), ""));
    }
}
