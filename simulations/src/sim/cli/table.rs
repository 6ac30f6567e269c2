//! Tables for people: columns as wide as what is in them.

/// A table, row by row; the first row is its head.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Its lines. Whatever is a number stands on the right of its column.
    pub(super) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let numeric = |cell: &str| cell.parse::<f64>().is_ok();
        let right: Vec<bool> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().skip(1).filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty());
                self.rows.len() > 1 && cells.clone().next().is_some() && cells.clone().all(|cell| numeric(cell) || cell == "-")
            })
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_on_the_right() {
        let mut table = Table::new(&["what", "how many"]);
        table.row(vec!["apples".to_owned(), "12".to_owned()]);
        table.row(vec!["fir".to_owned(), "-".to_owned()]);
        assert_eq!(table.lines(), ["what    how many", "apples        12", "fir            -"]);
    }
}
