//! rumqttd with the configuration file that is named on the command line.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which configuration file?")?;
    let read = config::Config::builder().add_source(config::File::new(&path, config::FileFormat::Toml)).build()?;
    Ok(rumqttd::Broker::new(read.try_deserialize()?).start()?)
}
