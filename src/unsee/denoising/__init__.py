"""What a pipeline asks of its denoiser: recorded, replayed, listened to, replaced."""
