//! rumqttc, the Rust MQTT client, at 3.1.1 and 5.0, through what gateways and services do with it.

use std::process::ExitCode;

use portolan_conformance::{Outcome, Suite, control, fresh, same};

use device::{Device, Options, Version};

mod device;
mod five;

#[tokio::main]
async fn main() -> ExitCode {
    let mut suite = Suite::default();
    for version in [Version::V311, Version::V5] {
        let named = |name: &str| format!("{name} [{version}]");
        suite.check(&named("every QoS in, every QoS out"), every_qos(version)).await;
        suite.check(&named("a thousand messages in order"), thousand(version)).await;
        suite.check(&named("retained set, replayed by wildcard, cleared"), retained(version)).await;
        suite.check(&named("a will after a crash, none after goodbye"), will(version)).await;
        suite.check(&named("a session keeps what comes"), session(version)).await;
        suite.check(&named("a takeover ends the old connection"), takeover(version)).await;
        suite.check(&named("shared subscriptions"), shared(version)).await;
        suite.check(&named("passwords"), passwords(version)).await;
        suite.check(&named("unsubscribe"), unsubscribe(version)).await;
        suite.check(&named("four megabytes to a topic in UTF-8"), big(version)).await;
        suite.check(&named("a session survives a restart"), restart(version)).await;
    }
    five::run(&mut suite).await;
    suite.finish()
}

/// A subscriber and a publisher.
async fn two(version: Version) -> anyhow::Result<(Device, Device)> {
    Ok((Device::connect(version, Options::default()).await?, Device::connect(version, Options::default()).await?))
}

async fn every_qos(version: Version) -> Outcome {
    let (mut subscriber, publisher) = two(version).await?;
    for granted in 0..3 {
        let topic = fresh("qos");
        subscriber.subscribe(&topic, granted).await?;
        for sent in 0..3 {
            publisher.publish(&topic, &[sent], sent, false).await?;
            let got = subscriber.next().await?;
            same((got.payload.to_vec(), got.qos, got.retain), (vec![sent], sent.min(granted), false))?;
        }
    }
    Ok(())
}

async fn thousand(version: Version) -> Outcome {
    let (mut subscriber, publisher) = two(version).await?;
    let topic = fresh("many");
    subscriber.subscribe(&topic, 2).await?;
    for qos in 0..3 {
        for n in 0..1000_u32 {
            publisher.publish(&topic, n.to_string().as_bytes(), qos, false).await?;
        }
        for n in 0..1000_u32 {
            same(subscriber.text().await?, n.to_string())?;
        }
    }
    Ok(())
}

async fn retained(version: Version) -> Outcome {
    let (mut subscriber, publisher) = two(version).await?;
    let root = fresh("kept");
    publisher.publish(&format!("{root}/a"), b"old", 1, true).await?;
    publisher.publish(&format!("{root}/a"), b"kept", 1, true).await?;
    publisher.settled().await?;
    subscriber.subscribe(&format!("{root}/+"), 1).await?;
    let got = subscriber.next().await?;
    same((got.payload.to_vec(), got.retain), (b"kept".to_vec(), true))?;
    publisher.publish(&format!("{root}/a"), b"", 1, true).await?;
    same(subscriber.text().await?, String::new())?;
    let mut late = Device::connect(version, Options::default()).await?;
    late.subscribe(&format!("{root}/#"), 1).await?;
    late.nothing().await
}

async fn will(version: Version) -> Outcome {
    let mut watcher = Device::connect(version, Options::default()).await?;
    let topic = fresh("will");
    watcher.subscribe(&topic, 2).await?;
    let with_will = || Options { will: Some((topic.clone(), "gone".into())), ..Options::default() };
    Device::connect(version, with_will()).await?.crash();
    let got = watcher.next().await?;
    same((got.payload.to_vec(), got.qos), (b"gone".to_vec(), 2))?;
    Device::connect(version, with_will()).await?.leave().await?;
    watcher.nothing().await
}

async fn session(version: Version) -> Outcome {
    let (topic, id) = (fresh("away"), fresh("session"));
    let lasting = || Options { client_id: id.clone(), clean: false, ..Options::default() };
    let device = Device::connect(version, lasting()).await?;
    same(device.present, false)?;
    device.subscribe(&topic, 2).await?;
    device.leave().await?;
    let publisher = Device::connect(version, Options::default()).await?;
    for n in 0..30_u32 {
        publisher.publish(&topic, n.to_string().as_bytes(), 1, false).await?;
    }
    publisher.settled().await?;
    let mut back = Device::connect(version, lasting()).await?;
    same(back.present, true)?;
    for n in 0..30_u32 {
        same(back.text().await?, n.to_string())?;
    }
    back.nothing().await?;
    back.leave().await?;
    let clean = Device::connect(version, Options { client_id: id, ..Options::default() }).await?;
    same(clean.present, false)
}

async fn takeover(version: Version) -> Outcome {
    let id = fresh("twice");
    let options = || Options { client_id: id.clone(), ..Options::default() };
    let mut old = Device::connect(version, options()).await?;
    let mut new = Device::connect(version, options()).await?;
    old.ended().await?;
    new.nothing().await
}

async fn shared(version: Version) -> Outcome {
    let (mut one, publisher) = two(version).await?;
    let mut other = Device::connect(version, Options::default()).await?;
    let topic = fresh("shared");
    for member in [&mut one, &mut other] {
        member.subscribe(&format!("$share/crew/{topic}"), 1).await?;
    }
    for n in 0..20_u8 {
        publisher.publish(&topic, &[n], 1, false).await?;
    }
    publisher.settled().await?;
    let mut got = Vec::new();
    while got.len() < 20 {
        let found = tokio::select! { found = one.next() => found?, found = other.next() => found? };
        got.extend_from_slice(&found.payload);
    }
    got.sort_unstable();
    same(got, (0..20).collect())
}

async fn passwords(version: Version) -> Outcome {
    let with = |password: &str| Options { login: Some(("guest".into(), password.into())), ..Options::default() };
    Device::connect(version, with("guest")).await?.leave().await?;
    match Device::connect(version, with("wrong")).await {
        Ok(_) => anyhow::bail!("a wrong password was let in"),
        Err(why) if format!("{why}").contains("Bad") || format!("{why}").contains("NotAuthorized") => Ok(()),
        Err(why) => Err(why),
    }
}

async fn unsubscribe(version: Version) -> Outcome {
    let mut device = Device::connect(version, Options::default()).await?;
    let topic = fresh("gone");
    device.subscribe(&topic, 1).await?;
    device.publish(&topic, b"one", 1, false).await?;
    same(device.text().await?, "one".to_owned())?;
    device.unsubscribe(&topic).await?;
    device.publish(&topic, b"two", 1, false).await?;
    device.nothing().await
}

async fn big(version: Version) -> Outcome {
    let mut device = Device::connect(version, Options::default()).await?;
    let topic = format!("{}/Küche/温度", fresh("big"));
    device.subscribe(&topic, 2).await?;
    let payload: Vec<u8> = (0..4_u32 << 20).map(|n| n as u8).collect();
    for qos in 0..3 {
        device.publish(&topic, &payload, qos, false).await?;
        let got = device.next().await?;
        same((got.topic == topic, got.payload == payload), (true, true))?;
    }
    Ok(())
}

async fn restart(version: Version) -> Outcome {
    let (topic, id) = (fresh("over"), fresh("restart"));
    let lasting = || Options { client_id: id.clone(), clean: false, ..Options::default() };
    let device = Device::connect(version, lasting()).await?;
    device.subscribe(&topic, 2).await?;
    device.leave().await?;
    let publisher = Device::connect(version, Options::default()).await?;
    publisher.publish(&topic, b"kept", 1, false).await?;
    publisher.settled().await?;
    control("restart").await?;
    let mut back = Device::connect(version, lasting()).await?;
    same(back.present, true)?;
    same(back.text().await?, "kept".to_owned())
}
