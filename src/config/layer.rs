//! Where values come from, before anything looks at what they mean: defaults, file, environment, flags.
//!
//! Each source is one [`Layer`] of plain text, and each text knows its [`Origin`]. A higher layer replaces a lower one setting by
//! setting, lists as a whole, so that a list in the file and one on the command line never mix.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ConfigError;
use super::parse::is_placeholder;
use super::setting::Setting;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: built in, or found on this machine.
    Default,
    /// In the configuration file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: u64,
    },
    /// In the environment.
    Environment(Setting),
    /// On the command line.
    Flag(Setting),
}

impl Origin {
    /// The place of a setting's value: the origin, and the setting's name where the origin does not tell it.
    pub(super) fn of(&self, setting: Setting) -> String {
        match self {
            Origin::Default | Origin::File { .. } => format!("{self}: {setting}"),
            Origin::Environment(_) | Origin::Flag(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(setting) => write!(f, "environment {}", setting.variable()),
            Origin::Flag(setting) => write!(f, "flag --{setting}"),
        }
    }
}

/// One value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// A setting's values as they were written: one, or for a list any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the setting was given (for a list in a file, the line of its key's value).
    pub origin: Origin,
    /// The values.
    pub values: Vec<Written>,
}

/// What one source says, or several of them merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    entries: BTreeMap<Setting, Entry>,
}

impl Layer {
    /// Sets a setting, replacing what was there.
    pub fn set(&mut self, setting: Setting, entry: Entry) {
        self.entries.insert(setting, entry);
    }

    /// Sets a setting to texts of one origin.
    pub fn put<T: Into<String>>(&mut self, setting: Setting, origin: &Origin, texts: impl IntoIterator<Item = T>) {
        let values = texts.into_iter().map(|text| Written { text: text.into(), origin: origin.clone() }).collect();
        self.set(setting, Entry { origin: origin.clone(), values });
    }

    /// What is said of a setting.
    pub fn get(&self, setting: Setting) -> Option<&Entry> {
        self.entries.get(&setting)
    }

    /// A setting's values; none when it is not set.
    pub fn values(&self, setting: Setting) -> &[Written] {
        self.get(setting).map_or(&[], |entry| &entry.values)
    }

    /// The value of a setting that has at most one.
    pub fn value(&self, setting: Setting) -> Option<&Written> {
        self.values(setting).last()
    }

    /// Whether a person set it, rather than the defaults.
    pub fn written(&self, setting: Setting) -> bool {
        self.get(setting).is_some_and(|entry| entry.origin != Origin::Default)
    }

    /// A complaint about a setting's value, at the place where it was written.
    pub fn complaint(&self, setting: Setting, what: impl Into<String>, right: impl Into<String>) -> ConfigError {
        let origin = self.value(setting).map_or(&Origin::Default, |written| &written.origin);
        ConfigError::new(origin.of(setting), what, right)
    }

    /// This layer with a higher one laid over it.
    #[must_use]
    pub fn under(mut self, higher: Layer) -> Layer {
        self.entries.extend(higher.entries);
        self
    }
}

/// All that a configuration is made from. Kept by who runs, because a reload reads it all again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file: `--config` or `PRISMESH_CONFIG`.
    pub file: Option<PathBuf>,
    /// The environment's variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The command line's flags.
    pub flags: Layer,
    /// The machine's name, the default of `node`.
    pub hostname: Option<String>,
}

impl Sources {
    /// The name of the variable that names the configuration file.
    pub const FILE_VARIABLE: &'static str = "PRISMESH_CONFIG";

    /// These flags, with this process's environment and the machine's name. `file` is what `--config` says.
    pub fn of_process(file: Option<PathBuf>, flags: Layer) -> Sources {
        let environment: Vec<_> = std::env::vars_os().collect();
        let named = environment.iter().find(|(name, value)| name == Sources::FILE_VARIABLE && !value.is_empty());
        let file = file.or_else(|| named.map(|(_, value)| PathBuf::from(value)));
        Sources { file, environment, flags, hostname: machine_name() }
    }

    /// Whether the machine has a name by which it can be told from others.
    pub fn has_hostname(&self) -> bool {
        self.hostname.as_deref().is_some_and(|hostname| !is_placeholder(hostname))
    }

    /// Looks at the machine's name again: it may get one after this process has started.
    pub fn look_at_hostname(&mut self) {
        self.hostname = machine_name();
    }

    /// The environment's layer. A variable that is set but empty counts as not set. Lists are separated by white space.
    pub(super) fn environment_layer(&self) -> Result<Layer, ConfigError> {
        let mut layer = Layer::default();
        for setting in Setting::ALL {
            let variable = setting.variable();
            let Some((_, value)) = self.environment.iter().find(|(name, _)| *name == *variable) else { continue };
            let origin = Origin::Environment(setting);
            let text = value.to_str().ok_or_else(|| ConfigError::new(&origin, "the value is not UTF-8", "write plain text"))?;
            if text.trim().is_empty() {
                continue;
            }
            if setting.about().many {
                layer.put(setting, &origin, text.split_whitespace());
            } else {
                layer.put(setting, &origin, [text.trim()]);
            }
        }
        Ok(layer)
    }

    /// Variables that look like ours and are none: perhaps misspelt, perhaps Kubernetes' own for a service named prismesh.
    pub(super) fn unknown_variables(&self) -> Vec<String> {
        let ours = |name: &str| name == Sources::FILE_VARIABLE || Setting::ALL.iter().any(|setting| setting.variable() == name);
        let theirs = |name: &str| name.contains("_SERVICE_") || name.contains("_PORT");
        self.environment
            .iter()
            .filter_map(|(name, _)| OsStr::to_str(name))
            .filter(|name| name.starts_with("PRISMESH_") && !ours(name) && !theirs(name))
            .map(str::to_owned)
            .collect()
    }
}

fn machine_name() -> Option<String> {
    hostname::get().ok().and_then(|name| name.into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Sources {
        let environment = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        Sources { environment, ..Sources::default() }
    }

    fn texts(layer: &Layer, setting: Setting) -> Vec<&str> {
        layer.values(setting).iter().map(|written| written.text.as_str()).collect()
    }

    #[test]
    fn a_list_in_the_environment_is_separated_by_white_space_because_its_items_hold_commas() {
        let layer = environment(&[("PRISMESH_EXTERNAL", " lb:6443,server-name=api\n other:6443 ")]).environment_layer().unwrap();
        assert_eq!(texts(&layer, Setting::External), ["lb:6443,server-name=api", "other:6443"]);
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let layer = environment(&[("PRISMESH_CLUSTER", " "), ("PRISMESH_SEED", "")]).environment_layer().unwrap();
        assert_eq!(layer, Layer::default());
    }

    #[test]
    fn a_higher_layer_replaces_a_list_as_a_whole_and_leaves_other_settings() {
        let mut low = Layer::default();
        low.put(Setting::Seed, &Origin::Default, ["a:1", "b:2"]);
        low.put(Setting::Log, &Origin::Default, ["info"]);
        let mut high = Layer::default();
        high.put(Setting::Seed, &Origin::Flag(Setting::Seed), ["c:3"]);
        let merged = low.under(high);
        assert_eq!(texts(&merged, Setting::Seed), ["c:3"]);
        assert_eq!(texts(&merged, Setting::Log), ["info"]);
    }

    #[test]
    fn a_misspelt_variable_is_noticed_and_kubernetes_own_are_not() {
        let sources = environment(&[
            ("PRISMESH_CLUSTRE", "a"),
            ("PRISMESH_CONFIG", "f"),
            ("PRISMESH_PORT_7446_TCP", "tcp://10.0.0.1:7446"),
            ("PRISMESH_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(sources.unknown_variables(), ["PRISMESH_CLUSTRE"]);
    }

    #[test]
    fn a_variable_that_is_not_utf8_is_refused_and_named() {
        use std::os::unix::ffi::OsStringExt;
        let environment = vec![("PRISMESH_NODE".into(), OsString::from_vec(vec![0xff]))];
        let error = Sources { environment, ..Sources::default() }.environment_layer().unwrap_err();
        assert!(error.to_string().starts_with("environment PRISMESH_NODE: "), "{error}");
    }
}
