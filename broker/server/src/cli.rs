//! The command line: what can be asked of `portolan`, and the commands that are not the broker itself.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::auth::{hash_password, scram_password};
use crate::config::{self, Loaded, Sources};
use crate::exit::{EXIT_CODES, Failure};

const EXAMPLES: &str = "\
Examples:
  portolan
      Start with defaults: AMQP on port 5672, MQTT on port 1883, data in ./portolan-data, user guest/guest from this machine only.
  portolan --config portolan.toml
      Start with a configuration file.
  portolan --data-dir /var/lib/portolan --set limits.memory=0.6
      Start with two settings changed.
  PORTOLAN__LISTENERS__AMQP=0.0.0.0:5673 portolan
      The same through the environment: PORTOLAN__SECTION__KEY.
  portolan config show --config portolan.toml
      Print every setting in force and where it came from.
  portolan hash-password
      Ask for a password and print the hash for `password_hash` in [[users]].

Settings, in rising order of precedence: defaults, configuration file, environment, --set, --data-dir.
";

/// What was asked.
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    about = "A message broker for AMQP 0-9-1 and MQTT clients",
    long_about = "Portolan is a message broker. Clients of RabbitMQ and of Mosquitto connect to it unchanged, \
                  and a message that it has confirmed is on stable storage.\n\nWithout a command it serves.",
    after_help = "Run `portolan --help` for examples and exit codes.",
    after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"),
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default)
    Serve,
    /// Look at the configuration without starting
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Hash a password, asked for or read from standard input, for `password_hash` in the configuration
    HashPassword {
        /// Print keys for `scram_sha_256` instead, for MQTT 5 clients that log in by SCRAM-SHA-256
        #[arg(long)]
        scram: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the broker would start with it
    Check,
    /// Print every key in force and where its value came from
    Show,
}

#[derive(Debug, Args)]
struct Settings {
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE", env = "PORTOLAN_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Change one setting; may be given several times
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Folder of the embedded store; short for --set node.data_dir=DIR
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl Cli {
    /// Does what was asked; `serve` runs the broker.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn run(self, serve: impl FnOnce(Loaded) -> Result<(), Failure>) -> Result<(), Failure> {
        match self.command {
            None | Some(Command::Serve) => serve(self.settings.load()?),
            Some(Command::Config { what: ConfigCommand::Check }) => check(&self.settings),
            Some(Command::Config { what: ConfigCommand::Show }) => print(&self.settings.load()?.show()),
            Some(Command::HashPassword { scram }) => {
                let password =
                    read_password().map_err(|error| Failure::Io { what: "cannot read the password", error })?;
                let hash = if scram { scram_password(&password) } else { hash_password(&password) };
                print(&format!("{}\n", hash.map_err(Failure::Internal)?))
            }
        }
    }
}

impl Settings {
    fn load(&self) -> Result<Loaded, Failure> {
        let sources = Sources {
            file: self.config.clone(),
            environment: std::env::vars_os().collect(),
            settings: self.set.clone(),
            data_dir: self.data_dir.clone(),
        };
        config::load(&sources).map_err(Failure::Config)
    }
}

fn check(settings: &Settings) -> Result<(), Failure> {
    let loaded = settings.load()?;
    let mut text = String::new();
    for advice in loaded.advice() {
        text.push_str(&format!("{advice}\n"));
    }
    text.push_str(&format!("configuration ok: {} values set, the others have their defaults\n", loaded.keys_set()));
    print(&text)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `portolan config show | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::Io { what: "cannot print", error }),
    }
}

/// One line from the terminal, unseen, or everything from a pipe but its last line end.
fn read_password() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut password = Vec::new();
    if stdin.is_terminal() {
        eprint!("Password: ");
        let shown = tcgetattr(&stdin)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
        let read = stdin.lock().read_until(b'\n', &mut password);
        tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
        eprintln!();
        read?;
    } else {
        stdin.lock().read_to_end(&mut password)?;
    }
    if password.last() == Some(&b'\n') {
        password.pop();
    }
    if password.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is empty"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("hash-password") && help.contains("PORTOLAN__LISTENERS__AMQP") && help.contains("  78"));
    }
}
