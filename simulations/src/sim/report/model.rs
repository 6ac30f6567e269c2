//! What the documentation says of the model, so that a report cannot say something else.

/// The page about simulations.
const PAGE: &str = include_str!("../../../../docs/SIMULATIONS.md");

/// What is not modelled.
pub(super) fn left_out() -> String {
    let after = PAGE.split_once("- **Left out**:").map_or("", |(_, after)| after);
    let lines = after.lines().enumerate().take_while(|(place, line)| *place == 0 || line.starts_with("  "));
    plain(&lines.map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" "))
}

/// What each invariant says, by its name.
pub(super) fn invariant(name: &str) -> Option<String> {
    let cells = PAGE.lines().filter_map(|line| line.strip_prefix("| ")).map(|row| row.split(" | ").collect::<Vec<_>>());
    let mut rules =
        cells.filter(|cells| cells.first().is_some_and(|first| first.parse::<u8>().is_ok()) && cells.get(1) == Some(&name));
    let rule = rules.next()?.get(2)?.trim_end_matches([' ', '|']).to_owned();
    Some(plain(&rule))
}

/// Markdown without its marks: of a link its words.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let (words, after) = link.split_once("](").unwrap_or((link, ""));
        plain.push_str(words);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.replace(['*', '`'], "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_tells_what_is_left_out_and_what_each_invariant_says() {
        assert!(left_out().contains("bandwidth"), "{}", left_out());
        assert!(!left_out().contains("]("));
        let all = [
            ["no needless error", "no needless wait", "no blind trust", "no needless reset", "no lingering"].as_slice(),
            &["agreement", "nearness", "calm in noise", "calm after a step", "balance of new", "balance of established"],
            &["thrift", "leases kept"],
        ];
        for name in all.concat() {
            assert!(invariant(name).is_some_and(|rule| rule.len() > 20), "{name}");
        }
        assert_eq!(invariant("no needless documentation"), None);
    }
}
