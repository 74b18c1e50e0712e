"""What becomes of the weights while a session is learned and when it is over; one file each."""
