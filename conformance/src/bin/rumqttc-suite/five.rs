//! What MQTT 5.0 adds, as rumqttc offers it.

use bytes::Bytes;
use portolan_conformance::{Outcome, Suite, fresh, same};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, PublishProperties, RetainForwardRule};

use crate::device::{Device, Options, Version};

/// Runs the checks.
pub(crate) async fn run(suite: &mut Suite) {
    suite.check("properties arrive unaltered and in order [5]", properties()).await;
    suite.check("no local, retain handling, retain as published [5]", options()).await;
    suite.check("receive maximum [5]", receive_maximum()).await;
    suite.check("message expiry counts down [5]", expiry()).await;
}

async fn connected() -> anyhow::Result<Device> {
    Device::connect(Version::V5, Options::default()).await
}

async fn properties() -> Outcome {
    let (mut subscriber, publisher, topic) = (connected().await?, connected().await?, fresh("properties"));
    subscriber.subscribe(&topic, 1).await?;
    let pairs = [("b", "1"), ("a", "2"), ("b", "1")].map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        response_topic: Some("re/ply".into()),
        correlation_data: Some(Bytes::from_static(&[0, 255, 7])),
        content_type: Some("text/plain".into()),
        user_properties: pairs,
        ..PublishProperties::default()
    };
    publisher.five()?.publish_with_properties(&topic, QoS::AtLeastOnce, false, "x", sent.clone()).await?;
    same(subscriber.next().await?.properties, Some(sent))
}

async fn options() -> Outcome {
    let (mut device, other, topic) = (connected().await?, connected().await?, fresh("options"));
    other.publish(&topic, b"kept", 1, true).await?;
    other.settled().await?;
    let filter = Filter {
        path: topic.clone(),
        qos: QoS::AtLeastOnce,
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: RetainForwardRule::Never,
    };
    device.five()?.subscribe_many([filter]).await?;
    device.granted().await?;
    device.publish(&topic, b"mine", 1, false).await?;
    device.settled().await?;
    other.publish(&topic, b"other", 1, true).await?;
    let got = device.next().await?;
    same((got.payload.to_vec(), got.retain), (b"other".to_vec(), true))?;
    device.nothing().await?;
    other.publish(&topic, b"", 1, true).await?;
    other.settled().await
}

async fn receive_maximum() -> Outcome {
    let few = Options { receive_maximum: Some(2), ..Options::default() };
    let (mut subscriber, publisher, topic) =
        (Device::connect(Version::V5, few).await?, connected().await?, fresh("few"));
    subscriber.subscribe(&topic, 2).await?;
    for n in 0..100_u8 {
        publisher.publish(&topic, &[n], 1 + n % 2, false).await?;
    }
    for n in 0..100_u8 {
        same(subscriber.next().await?.payload.to_vec(), vec![n])?;
    }
    Ok(())
}

async fn expiry() -> Outcome {
    let (mut subscriber, publisher, topic) = (connected().await?, connected().await?, fresh("expiry"));
    subscriber.subscribe(&topic, 1).await?;
    let sent = PublishProperties { message_expiry_interval: Some(100), ..PublishProperties::default() };
    publisher.five()?.publish_with_properties(&topic, QoS::AtLeastOnce, false, "x", sent).await?;
    let left = subscriber.next().await?.properties.and_then(|got| got.message_expiry_interval);
    same(left.is_some_and(|seconds| (80..=100).contains(&seconds)), true)
}
