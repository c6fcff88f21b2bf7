"""What the API says of itself: what each route needs, takes and answers, with an example of each."""
