//! The settings as flags, made from the table in [`Setting`] so that none is missing.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Layer, Origin, Setting, Sources};

/// All settings, and the file that holds more of them.
#[derive(Debug, Args)]
#[command(
    after_help = "Every setting can be given as a flag, in the environment, or in the file under the flag's name; flags win over \
                  environment over file. A list that is given replaces the one below it. Lists in the environment are separated \
                  by spaces."
)]
pub(super) struct Settings {
    /// A YAML file with settings [env: PRISMESH_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    flags: Flags,
}

impl Settings {
    /// These flags with the environment.
    pub(super) fn sources(self) -> Sources {
        Sources::of_process(self.config, self.flags.0)
    }
}

/// What the flags say.
#[derive(Debug)]
struct Flags(Layer);

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(Setting::ALL.map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut flags = Flags(Layer::default());
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in Setting::ALL {
            if matches.value_source(setting.name()) == Some(ValueSource::CommandLine)
                && let Some(values) = matches.get_many::<String>(setting.name())
            {
                self.0.put(setting, &Origin::Flag(setting), values.cloned());
            }
        }
        Ok(())
    }
}

fn argument(setting: Setting) -> Arg {
    let about = setting.about();
    let default = if about.default.is_empty() { String::new() } else { format!(" [default: {}]", about.default) };
    let more = if about.many { "; repeatable" } else { "" };
    Arg::new(about.name)
        .long(about.name)
        .value_name(about.value)
        .help(format!("{}{more}{default} [env: {}]", about.help, setting.variable()))
        .help_heading(heading(setting))
        .action(if about.many { ArgAction::Append } else { ArgAction::Set })
}

/// Under which heading of the help it stands.
fn heading(setting: Setting) -> &'static str {
    match setting {
        Setting::Cluster | Setting::Node | Setting::Listen | Setting::Admin | Setting::MaxConnections | Setting::StateDir => {
            "This node"
        }
        Setting::GossipListen
        | Setting::GossipAdvertise
        | Setting::Seed
        | Setting::Keyring
        | Setting::GossipCore
        | Setting::GossipAllowCidr
        | Setting::GossipNamesPerAddress
        | Setting::Allow => "Gossip",
        Setting::Apiserver | Setting::LocalApiserver | Setting::External | Setting::Endpoint => "API servers",
        Setting::Ca | Setting::ServerName | Setting::ProbeCert | Setting::ProbeKey | Setting::ProbeTokenFile => "Proof",
        Setting::LogFormat | Setting::Log => "Logs",
    }
}
