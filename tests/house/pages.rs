//! Just enough of a reader of Markdown: code spans, code blocks, links, headings.

use super::tree;

/// Where paths of this repository begin.
const PLACES: [&str; 6] = ["src/", "docs/", "tests/", "simulations/", ".ci/", ".github/"];

/// A page of the documentation.
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The README, and every other page that people read.
pub(crate) fn all() -> Vec<Page> {
    let pages = tree::files("").into_iter().filter(|path| path.ends_with(".md"));
    pages.map(|path| Page::read(&path)).collect()
}

impl Page {
    #[track_caller]
    pub(crate) fn read(path: &str) -> Page {
        Page { path: path.to_owned(), text: tree::read(path) }
    }

    /// Lines with whether they are in a block of code.
    fn lines(&self) -> Vec<(bool, &str)> {
        let mut fenced = false;
        let mut lines = Vec::new();
        for line in self.text.lines() {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            if !fence {
                lines.push((fenced || line.starts_with("    "), line));
            }
        }
        lines
    }

    /// The text without blocks of code.
    fn prose(&self) -> String {
        let prose = self.lines().into_iter().filter(|(code, _)| !code);
        prose.map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    }

    /// The paths of this repository that it names in code spans.
    pub(crate) fn paths(&self) -> Vec<String> {
        let prose = self.prose();
        let named = spans(&prose).into_iter().filter_map(|span| span.split_whitespace().next());
        let ours = named.filter(|path| PLACES.iter().any(|place| path.starts_with(place)) && !path.contains(['*', '<', '{']));
        ours.map(|path| path.trim_end_matches('/').to_owned()).collect()
    }

    /// All words of it, code included.
    pub(crate) fn words(&self) -> Vec<String> {
        words(&self.text).map(str::to_owned).collect()
    }

    /// The flags of `prismesh` that it mentions: alone in a code span, or in one of its commands.
    pub(crate) fn flags(&self) -> Vec<String> {
        let prose = self.prose();
        let spans = spans(&prose).into_iter().filter(|span| span.starts_with("--") || span.starts_with("prismesh "));
        let commands = self.commands();
        let mentions = spans.chain(commands.iter().map(String::as_str));
        mentions.flat_map(words).filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
    }

    /// Commands in blocks of code that run `prismesh`, continued lines put together.
    fn commands(&self) -> Vec<String> {
        let code: Vec<&str> = self.lines().into_iter().filter(|(code, _)| *code).map(|(_, line)| line).collect();
        let joined = code.join("\n").replace("\\\n", " ");
        let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
        lines.filter(|line| line.starts_with("prismesh ")).map(str::to_owned).collect()
    }

    /// Links to within the repository.
    pub(crate) fn links(&self) -> Vec<String> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let inner = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
        inner.map(str::to_owned).collect()
    }

    /// Where a link leads to, from the root of the repository; none if out of it.
    pub(crate) fn target(&self, link: &str) -> Option<String> {
        let file = link.split('#').next().unwrap_or_default();
        if file.is_empty() {
            return Some(self.path.clone());
        }
        let mut parts: Vec<&str> = self.path.split('/').collect();
        parts.pop();
        for part in file.split('/') {
            match part {
                "." | "" => {}
                ".." => {
                    parts.pop()?;
                }
                _ => parts.push(part),
            }
        }
        Some(parts.join("/"))
    }

    /// Whether a link leads somewhere; the error says what is missing.
    pub(crate) fn follow(&self, link: &str) -> Result<(), String> {
        let target = self.target(link).ok_or("out of the repository")?;
        if !tree::exists(&target) {
            return Err("nothing is there".to_owned());
        }
        match link.split_once('#') {
            Some((_, heading)) if !Page::read(&target).headings().iter().any(|slug| slug == heading) => {
                Err(format!("{target} has no such heading"))
            }
            _ => Ok(()),
        }
    }

    /// Its headings, as links name them.
    fn headings(&self) -> Vec<String> {
        let lines = self.lines();
        let headings = lines.iter().filter(|(code, line)| !code && line.starts_with('#'));
        headings.map(|(_, line)| slug(line.trim_start_matches('#').trim())).collect()
    }
}

/// A heading as GitHub names it in links.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign));
    kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
}

/// What stands between single backticks.
pub(crate) fn spans(text: &str) -> Vec<&str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Words as names and flags are made of.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|sign: char| !(sign.is_alphanumeric() || sign == '_' || sign == '-')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "docs/page.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn links_are_resolved_from_their_page() {
        let page = page("[a](../README.md) [b](decisions/x.md#why) [c](https://example.com) [d](#here)");
        let targets: Vec<_> = page.links().iter().filter_map(|link| page.target(link)).collect();
        assert_eq!(targets, ["README.md", "docs/decisions/x.md", "docs/page.md"]);
        assert_eq!(page.target("../../elsewhere"), None);
    }

    #[test]
    fn headings_are_named_as_in_links() {
        assert_eq!(page("# As a `systemd` service, 2nd\n").headings(), ["as-a-systemd-service-2nd"]);
    }

    #[test]
    fn flags_are_those_of_prismesh_only() {
        let text =
            "`--seed` `cargo --offline`\n```sh\ncargo run --release\nprismesh run --ca x \\\n  --node y # --not this\n```\n";
        assert_eq!(page(text).flags(), ["--seed", "--ca", "--node"]);
    }
}
