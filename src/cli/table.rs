//! Aligned columns.

use super::output::harmless;

/// Between two columns.
const GAP: &str = "  ";

/// Rows under a heading, columns aligned to the left, no trailing space. Foreign text is made harmless.
pub(super) fn table<const COLUMNS: usize>(heading: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| row.each_ref().map(|cell| harmless(cell))));
    let mut widths = [0; COLUMNS];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

/// A round trip.
pub(super) fn milliseconds(time: Option<f64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < 10.0 => format!("{time:.2} ms"),
        Some(time) => format!("{time:.0} ms"),
    }
}

/// What is not there.
pub(super) fn or_dash(text: Option<&String>) -> String {
    text.filter(|text| !text.is_empty()).cloned().unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{milliseconds, table};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_control_characters_do_nothing() {
        let rows = [["a".to_owned(), "\u{1b}[31mb".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["ONE", "TWO"], &rows), "ONE   TWO\na     \u{fffd}[31mb\nlong\n");
    }

    #[test]
    fn small_round_trips_keep_two_decimals() {
        assert_eq!(milliseconds(Some(0.418)), "0.42 ms");
        assert_eq!(milliseconds(Some(20.4)), "20 ms");
        assert_eq!(milliseconds(None), "-");
    }
}
