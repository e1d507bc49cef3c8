//! What is deleted once nobody needs it, and what is not.

use crate::story::Story;
use time::Duration;

#[tokio::test]
async fn sessions_are_kept_for_a_month_after_their_end_and_live_ones_for_ever() {
    let story = Story::new().await;
    let ended = story.user("ada@example.com").await;
    let live = story.sign_in("ada@example.com").await;
    story.post("/api/v1/auth/logout", &serde_json::json!({"refreshToken": ended.refresh_token})).await;
    let sessions = "SELECT count(*) FROM auth.sessions";
    story
        .execute(
            "UPDATE auth.sessions SET revoked_at = now() - interval '29 days' WHERE revoked_at IS NOT NULL",
        )
        .await;
    story.workers.prune().await;
    assert_eq!(story.number(sessions).await, 2, "not yet");
    story
        .execute(
            "UPDATE auth.sessions SET revoked_at = now() - interval '31 days' WHERE revoked_at IS NOT NULL",
        )
        .await;
    story.workers.prune().await;
    assert_eq!(story.number(sessions).await, 1);
    assert_eq!(story.number("SELECT count(*) FROM auth.refresh_chains").await, 1);
    assert_eq!(story.refresh(&live.refresh_token).await.status, 200);
    assert_eq!(story.refresh(&ended.refresh_token).await.status, 401);
}

#[tokio::test]
async fn those_that_ended_are_found_among_many_that_live() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    // More than are looked at together, with ended ones in each part.
    story
        .execute(
            "INSERT INTO auth.sessions (id, user_id, cookie_hash, remember_me, created_at, last_active_at, expires_at)
             SELECT 'many-' || lpad(n::text, 6, '0'), (SELECT id FROM auth.users), sha256(convert_to(n::text, 'UTF8')), false,
                 now() - interval '90 days', now(), now() + CASE WHEN n % 3 = 0 THEN interval '-31 days' ELSE interval '1 day' END
             FROM generate_series(1, 21000) n",
        )
        .await;
    story
        .execute(
            "INSERT INTO auth.refresh_chains
                 (id, user_id, session_id, app_id, secret_version, seed, generation, rotated_at, expires_at)
             SELECT sessions.id || '-' || copy, sessions.user_id, sessions.id, 'app', secret_version, seed, 1, now(), sessions.expires_at
             FROM auth.sessions, generate_series(1, 2) copy, (SELECT * FROM auth.refresh_chains LIMIT 1) pattern WHERE sessions.id LIKE 'many-%'",
        )
        .await;
    story.workers.prune().await;
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions").await, 14_001);
    assert_eq!(story.number("SELECT count(*) FROM auth.sessions WHERE expires_at < now()").await, 0);
    assert_eq!(story.number("SELECT count(*) FROM auth.refresh_chains").await, 28_001);
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}

#[tokio::test]
async fn a_server_whose_clock_is_ahead_deletes_nothing_that_lives() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    story.clock.advance(Duration::days(400));
    story.workers.prune().await;
    story.clock.advance(Duration::days(-400));
    assert_eq!(story.refresh(&ada.refresh_token).await.status, 200);
}

#[tokio::test]
async fn events_are_kept_as_long_as_the_setting_says() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let old = "INSERT INTO auth.security_events (id, type, created_at)
               SELECT ('01' || lpad(to_hex(n), 30, '0'))::uuid, 'sign_in_failed', now() - interval '500 days' FROM generate_series(1, 2500) n";
    story.execute(old).await;
    story.workers.prune().await;
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events WHERE type = 'sign_in_failed'").await,
        0
    );
    assert_eq!(
        story.number("SELECT count(*) FROM auth.security_events").await,
        2,
        "registered and signed in"
    );
}

#[tokio::test]
async fn the_database_lets_nobody_delete_what_has_just_happened() {
    let story = Story::new().await;
    story.user("ada@example.com").await;
    let mut service = story.database.service().begin().await.unwrap();
    let done = sqlx::query("DELETE FROM auth.security_events").execute(&mut *service).await.unwrap();
    service.commit().await.unwrap();
    assert_eq!(done.rows_affected(), 0);
    assert_eq!(story.number("SELECT count(*) FROM auth.security_events").await, 2);
    let changed = sqlx::query("UPDATE auth.security_events SET type = 'nothing'")
        .execute(story.database.service().pool())
        .await;
    assert!(changed.is_err(), "events are never changed");
}
