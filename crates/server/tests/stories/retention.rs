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

#[tokio::test]
async fn answers_are_remembered_for_400_days_by_both_clocks_and_what_they_answer_to_for_ever() {
    let story = Story::new().await;
    let ada = story.user("ada@example.com").await;
    let spend = |key: &str| {
        let body = serde_json::json!({"amount": 1, "appId": "chat", "description": "An answer", "idempotencyKey": key});
        story.client.post("/api/v1/credits/use", &body).bearer(&ada.access_token).send()
    };
    for key in ["old", "new"] {
        assert_eq!(spend(key).await.status, 201);
    }
    let answers = "SELECT count(*) FROM credits.remembered_answers";
    story.clock.advance(Duration::days(500));
    story.workers.prune().await;
    story.clock.advance(Duration::days(-500));
    assert_eq!(story.number(answers).await, 2, "a clock that is ahead");
    let age = "UPDATE credits.remembered_answers SET created_at = now() - interval '399 days' WHERE ctid = (SELECT min(ctid) FROM credits.remembered_answers)";
    story.execute(age).await;
    story.workers.prune().await;
    assert_eq!(story.number(answers).await, 2, "not yet");
    story.execute("UPDATE credits.remembered_answers SET created_at = created_at - interval '2 days' WHERE created_at < now() - interval '1 day'").await;
    story.workers.prune().await;
    assert_eq!(story.number(answers).await, 1);
    assert_eq!(spend("new").await.status, 201);
    assert_eq!(story.number("SELECT count(*) FROM credits.transactions WHERE type = 'usage'").await, 2);
    crate::credits::books_are_true(&story).await;
}
